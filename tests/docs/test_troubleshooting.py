"""Every message on the troubleshooting page still exists in the code."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from doc_blocks import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
# The text of a message in the first column of a table; `…` stands for any text.
MESSAGES = re.findall(r"^\| `([^`]+)`", PAGE, re.MULTILINE)
OTHER_PROGRAMS = ("JSON structure is corrupted",)  # of DVC; a comment in tasks/dvc_command.py names the version


@cache
def message_texts() -> str:
    """Return all texts of the source, one per line, with a placeholder for each inserted value."""
    texts = []
    for folder in ("longreward", "tasks", "flows"):
        for path in Path(ROOT, folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value)
                elif isinstance(node, ast.JoinedStr):
                    texts.append("".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values))
    return "\n".join(" ".join(text.split()) for text in texts)


def test_page_has_messages() -> None:
    assert len(MESSAGES) > 40
    assert len(set(MESSAGES)) == len(MESSAGES)


@pytest.mark.parametrize("message", MESSAGES)
def test_message_exists(message: str) -> None:
    if message in OTHER_PROGRAMS:
        return
    pattern = ".*".join(re.escape(part.strip()) for part in message.split("…"))
    assert re.search(pattern, message_texts()), "update docs/troubleshooting.md"
