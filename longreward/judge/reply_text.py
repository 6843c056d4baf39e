"""Text utilities for parsers of judge replies: label normalization, closing lines, JSON, tags.

Judges of different makes decorate the same verdict differently. Every function takes time linear in the length of the
reply.
"""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {ord("【"): "[", ord("】"): "]"}
_LONGEST_LINE = 120
_QUOTES = " \t\r\n*_`#>$\"'“”‘’「」"
_FINAL = ".,;:!?。、；：！？~"
DECORATION = _QUOTES + _FINAL
"""Characters that may surround a label without changing it."""
_MARKUP = re.compile(r"[*_`#$]|^\s*>")
_HYPHEN = re.compile(r"(?<=\w)[-_\u2010\u2011](?=\w)")
_WRAPPED = re.compile(r"\[\[([^\[\]]+)\]\]|\[([^\[\]]+)\]|\(([^()]+)\)|\\boxed\{([^{}]+)\}|<([^<>]+)>")
# Names that judges give their verdict, in the languages of the built-in prompts.
_NAME = (
    r"(?:(?:final|overall|my)[ ]{1,3}){0,2}(?:rating|score|grade|verdict|judge?ment|conclusion|level|better|winner|"
    r"support(?:[ ]level)?|final answer)|评分|打分|得分|分数|总分|支持程度|支持度|等级|结论|判断|更好"
)
_IS = r"(?:is|of|at|as|=|would be|should be|will be|应为|应是|应该是|为|是)"
_ASSIGNED = rf"(?:{_NAME})\s{{0,4}}(?:[:=]|[-–—](?=\s)|{_IS}(?=\W))\s{{0,4}}"
INTRODUCTION = re.compile(
    rf"(?:{_NAME}|\bin the end|\bfinally|\boverall|最终|最后)[\s:*_`\"“-]{{0,6}}(?:{_IS}[\s:*_`\"“]{{0,4}})?$", re.I
)
"""Words directly before a bracket that introduce it as the verdict."""
_CLOSING_LINE = re.compile(
    rf"[-•\s]{{0,4}}(?:(?:so|thus|therefore|hence|the)\b[ ,]{{0,3}}){{0,3}}{_ASSIGNED}(?:{_IS}\s{{0,4}})?(\S.*)", re.I
)
_PREFIX = re.compile(rf"^{_ASSIGNED}", re.I)


def find_closing_label(text: str, keys: Collection[str] = ()) -> str | None:
    """Return the label on the last line after "Rating:" or a similar word, or in JSON; None if there is none.

    >>> find_closing_label("Good, but short.\\n**Rating:** 8/10"), find_closing_label("It costs 8: a lot.")
    ('8/10', None)
    >>> find_closing_label('Good, but short.\\n{"rating": 8}', ["rating"])
    '8'
    """
    if (label := find_json_label(text.rstrip().rpartition("\n")[2], keys)) is not None:
        return label
    line = last_line(text)
    match = _CLOSING_LINE.fullmatch(line) if len(line) <= _LONGEST_LINE else None
    return match[1] if match else None


def last_line(text: str) -> str:
    """Return the last line that is not blank, without markup."""
    return _MARKUP.sub("", to_halfwidth(text).rstrip().rpartition("\n")[2]).strip()


def normalize_label(label: str) -> str:
    r"""Return a label without markup, quotes, brackets, final punctuation and "Rating:".

    >>> [normalize_label(label) for label in ("**Fully-supported.**", '"Rating: 8"', r"\boxed{8}", "[8]", "[8")]
    ['fully supported', '8', '8', '8', '[8']
    """
    if len(label) > _LONGEST_LINE:
        return ""
    label = to_halfwidth(label).strip(_QUOTES).rstrip(_QUOTES + _FINAL)
    while (wrapped := _WRAPPED.fullmatch(label)) and (inner := next(part for part in wrapped.groups() if part)):
        label = inner.strip(_QUOTES).rstrip(_QUOTES + _FINAL)
    label = _PREFIX.sub("", label, count=1).strip(_QUOTES).rstrip(_QUOTES + _FINAL)
    return " ".join(_HYPHEN.sub(" ", label).casefold().split())


def parse_json_reply(text: str) -> Any:
    """Parse the reply as JSON, with or without a code fence; None if it is not JSON or repeats a key."""
    stripped = text.strip()
    if stripped.startswith("```") and stripped.endswith("```") and "\n" in stripped:
        stripped = stripped.partition("\n")[2][:-3].strip()
    if stripped[:1] not in ("{", "["):
        return None
    try:
        return json.loads(stripped, object_pairs_hook=_dict_without_duplicates)
    except (ValueError, RecursionError):
        return None


def find_json_label(text: str, keys: Collection[str]) -> str | None:
    """Return the text or number under the only one of `keys` in a JSON reply."""
    reply = parse_json_reply(text)
    if not isinstance(reply, dict):
        return None
    values = [value for key, value in reply.items() if key.casefold() in keys]
    if len(values) != 1 or isinstance(values[0], bool) or not isinstance(values[0], str | int | float):
        return None
    return str(values[0])


@dataclass(frozen=True)
class TaggedTexts:
    """The texts of one tag's elements in order. `closed` is False if one opens before the last is closed."""

    texts: tuple[str, ...]
    closed: bool


def find_tagged(text: str, name: str) -> TaggedTexts:
    """Return the texts between `<name>` and `</name>`, with any case, attributes and spaces in the tags.

    A last element without an end tag, as in a truncated reply, is left out.
    """
    texts: list[str] = []
    start: int | None = None
    closed = True
    for match in tag_pattern(name).finditer(text):
        if match["end"]:
            if start is not None:
                texts.append(text[start : match.start()].strip())
            start = None
        elif not match["empty"]:
            closed = closed and start is None
            start = match.end()
    return TaggedTexts(tuple(texts), closed)


def has_tag(text: str, name: str) -> bool:
    """Return whether the text has `<name>`, `<name/>` or `</name>`; `_`, `-` and space in a name are equal.

    >>> has_tag("<No-Statement />", "no_statement")
    True
    """
    return tag_pattern(name).search(text) is not None


def tag_pattern(name: str) -> re.Pattern[str]:
    """Return a pattern for opening, closing and empty tags."""
    # Repetitions are bounded because two adjacent unbounded ones take quadratic time.
    spelled = "[ _-]".join(map(re.escape, re.split("[ _-]", name)))
    return re.compile(rf"<\s{{0,8}}(?P<end>/?)\s{{0,8}}{spelled}(?:\s[^<>/]{{0,200}})?(?P<empty>/?)\s{{0,8}}>", re.I)


def to_halfwidth(text: str) -> str:
    """Replace full-width characters and lenticular brackets by ASCII; positions do not change."""
    return text if text.isascii() else text.translate(_FULL_WIDTH)


def _dict_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("duplicate key")
    return dict(pairs)
