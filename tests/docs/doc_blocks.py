"""The Markdown pages of the project and their code blocks."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^( *)(```+)(\w*)[^\n]*\n(.*?)^\1\2 *$", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"(?:(?<=\n\n)|\A)((?: {4}[^\n]*\n)+)")


@dataclass(frozen=True)
class CodeBlock:
    """One code block of a page."""

    page: Path
    language: str
    """The word after the fence; empty for an indented block and for a fence without one."""
    text: str


def page_name(page: Path) -> str:
    """Return the path of a page in the repository, for ids of tests and messages."""
    return page.relative_to(ROOT).as_posix()


def code_blocks(page: Path) -> list[CodeBlock]:
    """Return the fenced and the indented blocks of a page."""
    text = page.read_text(encoding="utf-8")
    fenced = [CodeBlock(page, match[3], match[4]) for match in FENCE.finditer(text)]
    indented = INDENTED.finditer(FENCE.sub("", text))
    return fenced + [CodeBlock(page, "", re.sub(r"^ {4}", "", match[1], flags=re.MULTILINE)) for match in indented]


def prose(page: Path) -> str:
    """Return the text of a page without its code blocks."""
    return INDENTED.sub("", FENCE.sub("", page.read_text(encoding="utf-8")))


def inline_code(page: Path) -> Iterator[str]:
    """Yield every `code span` of the prose."""
    yield from re.findall(r"(?<!`)`([^`\n]+)`(?!`)", prose(page))
