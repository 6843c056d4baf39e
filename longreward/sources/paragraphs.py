"""A document that stands in its column in parts, joined to one text.

["First paragraph.", "Second one."]
[["Title", ["First sentence.", " Second one."]], …]                     HotpotQA
{"title": ["Title", …], "sentences": [["First sentence.", …], …]}       HotpotQA on the Hugging Face hub
[{"title": "Title", "text": "…"}, {"title": "…", "paragraph_text": "…"}]   retrieval sets, MuSiQue
"""

from typing import Any

from longreward.jsonl import RowError

TEXT_KEYS = ("text", "paragraph_text", "sentences", "content", "contents")


def join_paragraphs(value: Any, column: str) -> Any:
    """The parts with a blank line between them, each under its title; what is no list of parts comes back as it is.

    Raises RowError for a part of another form.
    """
    if isinstance(value, dict) and isinstance(value.get("title"), list) and isinstance(value.get("sentences"), list):
        if len(value["title"]) != len(value["sentences"]):
            raise RowError(
                f"{column} has {len(value['title'])} titles and {len(value['sentences'])} lists of sentences"
            )
        value = list(zip(value["title"], value["sentences"], strict=True))
    if not isinstance(value, list):
        return value
    parts = (_paragraph(part, f"paragraph {number} of {column}") for number, part in enumerate(value))
    return "\n\n".join(part for part in parts if part.strip())


def _paragraph(part: Any, where: str) -> str:
    if isinstance(part, str):
        return part
    title, text = None, None
    if isinstance(part, list | tuple) and len(part) == 2:
        title, text = part
    elif isinstance(part, dict):
        title = part.get("title")
        text = next((part[key] for key in TEXT_KEYS if part.get(key) is not None), None)
    # HotpotQA's sentences begin with the space that separates them.
    if isinstance(text, list) and all(isinstance(sentence, str) for sentence in text):
        text = "".join(text)
    if not isinstance(text, str) or not isinstance(title, str | None):
        raise RowError(f"{where} is {type(part).__name__}, expected a text, [title, sentences] or {{title, text}}")
    return f"{title}\n{text}" if title else text
