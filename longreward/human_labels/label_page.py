"""A self-contained HTML page to label items, for reviewers without MLflow.

It has the style and the safety of the evidence page (`longreward.inspection`): one file without requests, texts as text
nodes, a Content-Security-Policy with the hashes of its script and stylesheet. Labels stay in the browser until they are
downloaded as the JSON lines that `longreward review import` reads. The page holds no verdict of the judge.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from longreward.human_labels.items import DEFINITIONS, MAX_SCORE, SUPPORT_LEVELS, SUPPORT_QUESTION, WORDS, ReviewItem
from longreward.inspection.html_page import FILES as INSPECTION_FILES
from longreward.inspection.html_page import csp_hash, encode_block
from longreward.records import Evidence

FILES = Path(__file__).parent / "page_files"


def render_label_page(items: Sequence[ReviewItem]) -> str:
    """Return the page for these items, in their order."""
    documents: dict[str, int] = {}
    rows = [_row(item, documents) for item in items]
    # The same items find their labels again, in a page that is written anew too.
    key = hashlib.sha256("\0".join(item.id for item in items).encode()).hexdigest()[:16]
    script = (FILES / "labels.js").read_text(encoding="utf-8")
    base_style = (INSPECTION_FILES / "page.css").read_text(encoding="utf-8")
    style = base_style + (FILES / "labels.css").read_text(encoding="utf-8")
    return _template().render(
        script=Markup(script),
        style=Markup(style),
        script_hash=csp_hash(script),
        style_hash=csp_hash(style),
        data=encode_block({"items": rows, "documents": list(documents), "storageKey": f"longreward-labels-{key}"}),
    )


def question(item: ReviewItem) -> tuple[str, str]:
    """Return the question that a reviewer answers, and what it means."""
    if item.kind == "support":
        return SUPPORT_QUESTION, SUPPORT_LEVELS
    if item.kind == "preference":
        return f"Which response is better: {item.aspect}?", f"{DEFINITIONS[item.aspect]} Tie only if you cannot tell."
    return f"Score from 0 to {MAX_SCORE}: {item.aspect}", f"{DEFINITIONS[item.aspect]} 0: not at all. 10: entirely."


def _row(item: ReviewItem, documents: dict[str, int]) -> dict[str, Any]:
    title, definition = question(item)
    words = WORDS.get(item.kind)
    row: dict[str, Any] = {
        "id": item.id,
        "query": item.query,
        "responses": item.responses,
        "question": title,
        "definition": definition,
        "values": list(words) if words else [str(score) for score in range(MAX_SCORE + 1)],
    }
    if item.kind == "support":
        row |= {
            "statement": item.statement,
            "evidence": [chunk.text for chunk in item.evidence],
            "spans": [_span(item, chunk) for chunk in item.evidence if _is_literal(item, chunk)],
        }
    if item.kind == "support" or item.shows_document:
        row["document"] = documents.setdefault(item.context, len(documents))
    return row


def _is_literal(item: ReviewItem, chunk: Evidence) -> bool:
    """Whether the chunk is at its position in the document; evidence of imported labels need not be."""
    return item.context[chunk.start : chunk.end] == chunk.text


def _span(item: ReviewItem, chunk: Evidence) -> tuple[int, int]:
    """Return start and end in UTF-16 units, by which JavaScript counts."""
    start = _utf16_length(item.context[: chunk.start])
    return start, start + _utf16_length(chunk.text)


def _utf16_length(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string((FILES / "labels.html.j2").read_text(encoding="utf-8"))
