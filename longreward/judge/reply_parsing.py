"""Building blocks for parsers of judge replies: the verdict among several brackets, tags, JSON, closing lines.

    find_verdict("[[3]] at first. Rating: [[8]]", RATING)   # Verdict(value=8.0)

A parser must not guess: it returns a value only where one reading is possible, and the judge is asked again
otherwise. Every function takes time proportional to the length of the reply.
"""

import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class LabelFormat(Generic[T]):
    """How one kind of verdict is written."""

    parse: Callable[[str], T | None]
    """The value of a label; None for one that is not known."""
    resembles: Callable[[str], bool]
    """Whether an unknown label was meant as a verdict ("Mostly supported"), as opposed to a reference in brackets
    ("Passage 2"), which is ignored."""
    keys: Collection[str]
    """Keys of a JSON object that may hold it."""
    void_before: re.Pattern[str] | None = None
    """What makes a label void that stands before it, such as "/100"."""


@dataclass(frozen=True)
class Verdict(Generic[T]):
    """`value` is None where the labels of a reply contradict each other or are not known."""

    value: T | None


def find_verdict(text: str, form: LabelFormat[T]) -> Verdict[T] | None:
    """The verdict of a reply: in double brackets, after "Rating:" on its last line, or in JSON.

    Among several brackets the last one counts if all agree, if a word like "Rating:" introduces it, or if it alone has
    a line of its own. Anything else, such as "[[7]] or [[8]]", a repeated list of options or a reply that goes on with
    another example of the prompt, has no clear verdict. None where the reply has nothing of the kind.
    """
    if (label := find_json_label(text, form.keys)) is not None:
        return Verdict(form.parse(label))
    closing = form.parse(find_closing_label(text, form.keys) or "")
    text = to_halfwidth(text)
    brackets = _brackets(text, form)
    if not brackets:
        return None if closing is None else Verdict(closing)
    *others, last = brackets
    if _continues_examples(text, brackets):
        return Verdict(None)
    agree = all(bracket.value == last.value for bracket in others)
    only_line = last.alone and not any(bracket.alone or bracket.introduced for bracket in others)
    value = last.value if agree or last.introduced or only_line else None
    if closing is None or closing == value:
        return Verdict(value)
    # "It claims [[10]].\nRating: 3": the bracket is a quotation unless it was introduced as a verdict, too.
    return Verdict(None if any(bracket.introduced for bracket in brackets) else closing)


def _continues_examples(text: str, brackets: "Sequence[_Bracket[T]]") -> bool:
    """Whether a heading such as "[Question]" stands between two verdicts that differ.

    Small models go on with the next example of a few-shot prompt after their verdict, up to that example's verdict.
    """
    verdicts = [bracket for bracket in brackets if bracket.introduced]
    differing = [verdict for verdict in verdicts if verdict.value != verdicts[-1].value]
    return bool(differing) and _HEADING.search(text, differing[0].start, verdicts[-1].start) is not None


@dataclass(frozen=True)
class _Bracket(Generic[T]):
    value: T | None
    introduced: bool  # "Rating:" or a similar word stands directly before it
    alone: bool  # it has a line of its own
    start: int


def _brackets(text: str, form: LabelFormat[T]) -> list[_Bracket[T]]:
    """Those that are, or look like, a verdict."""
    brackets: list[_Bracket[T]] = []
    for match in _BRACKETS.finditer(text):
        # A search for the start of the line would take quadratic time where one line holds all brackets.
        before = text[max(0, match.start() - _NEARBY) : match.start()].rpartition("\n")[2]
        after = text[match.end() : match.end() + _NEARBY].partition("\n")[0]
        introduced = _INTRODUCTION.search(before) is not None
        alone = not before.strip(_DECORATION) and not after.strip(_DECORATION)
        value = form.parse(match[1])
        if form.void_before is not None and form.void_before.match(after):
            value = None
        if value is not None or introduced or alone or form.resembles(match[1]):
            brackets.append(_Bracket(value, introduced, alone, match.start()))
    return brackets


def find_closing_label(text: str, keys: Collection[str] = ()) -> str | None:
    """What the last line says after "Rating:" or a similar word, or as JSON; None where it has no such form.

    >>> closing_label("Good, but short.\\n**Rating:** 8/10"), closing_label("It costs 8: a lot.")
    ('8/10', None)
    >>> closing_label('Good, but short.\\n{"rating": 8}', ["rating"])
    '8'
    """
    if (label := find_json_label(text.rstrip().rpartition("\n")[2], keys)) is not None:
        return label
    line = last_line(text)
    match = _CLOSING_LINE.fullmatch(line) if len(line) <= _LONGEST_LINE else None
    return match[1] if match else None


def last_line(text: str) -> str:
    """The last line that is not blank, without markup."""
    return _MARKUP.sub("", to_halfwidth(text).rstrip().rpartition("\n")[2]).strip()


def normalize_label(label: str) -> str:
    r"""A label without what surrounds it: markup, quotes, one pair of brackets, final punctuation, "Rating:".

    >>> bare("**Fully-supported.**"), bare('"Rating: 8"'), bare(r"\boxed{8}"), bare("[8]"), bare("[8")
    ('fully supported', '8', '8', '8', '[8')
    """
    if len(label) > _LONGEST_LINE:
        return ""
    label = to_halfwidth(label).strip(_QUOTES).rstrip(_QUOTES + _FINAL)
    while (opened := _WRAPPED.fullmatch(label)) and (inner := next(part for part in opened.groups() if part)):
        label = inner.strip(_QUOTES).rstrip(_QUOTES + _FINAL)
    label = _PREFIX.sub("", label, count=1).strip(_QUOTES).rstrip(_QUOTES + _FINAL)
    return " ".join(_HYPHEN.sub(" ", label).casefold().split())


def parse_json_reply(text: str) -> Any:
    """The reply as JSON, with or without a code fence; None where it is no JSON, or an object names one key twice."""
    stripped = text.strip()
    if stripped.startswith("```") and stripped.endswith("```") and "\n" in stripped:
        stripped = stripped.partition("\n")[2][:-3].strip()
    if stripped[:1] not in ("{", "["):
        return None
    try:
        return json.loads(stripped, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return None


def find_json_label(text: str, keys: Collection[str]) -> str | None:
    """The text or number under the only one of `keys` that a JSON reply has."""
    reply = parse_json_reply(text)
    if not isinstance(reply, dict):
        return None
    values = [value for key, value in reply.items() if key.casefold() in keys]
    if len(values) != 1 or isinstance(values[0], bool) or not isinstance(values[0], str | int | float):
        return None
    return str(values[0])


@dataclass(frozen=True)
class TaggedTexts:
    """The texts of one tag's elements, in order. `closed` is False where one opens before the last has been closed."""

    texts: tuple[str, ...]
    closed: bool


def find_tagged(text: str, name: str) -> TaggedTexts:
    """What stands between `<name>` and `</name>`, whatever the case, attributes and spaces of the tags.

    The last element may lack its end, as in a reply that was cut; it is left out.
    """
    texts: list[str] = []
    opened: int | None = None
    closed = True
    for match in tag_pattern(name).finditer(text):
        if match["end"]:
            if opened is not None:
                texts.append(text[opened : match.start()].strip())
            opened = None
        elif not match["empty"]:
            closed = closed and opened is None
            opened = match.end()
    return TaggedTexts(tuple(texts), closed)


def has_tag(text: str, name: str) -> bool:
    """Whether `<name>`, `<name/>` or `</name>` stands in the text; `_`, `-` and a space in a name are the same.

    >>> has_tag("<No-Statement />", "no_statement")
    True
    """
    return tag_pattern(name).search(text) is not None


def tag_pattern(name: str) -> re.Pattern[str]:
    """Opening, closing and empty tags. Repetitions are bounded: two unbounded ones side by side are quadratic."""
    spelled = "[ _-]".join(map(re.escape, re.split("[ _-]", name)))
    return re.compile(rf"<\s{{0,8}}(?P<end>/?)\s{{0,8}}{spelled}(?:\s[^<>/]{{0,200}})?(?P<empty>/?)\s{{0,8}}>", re.I)


def to_halfwidth(text: str) -> str:
    """The text with full-width forms and lenticular brackets in ASCII; positions stay the same."""
    return text if text.isascii() else text.translate(_FULL_WIDTH)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key comes twice")
    return dict(pairs)


_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {ord("【"): "[", ord("】"): "]"}
_NEARBY, _LONGEST_LINE = 60, 120
_QUOTES = " \t\r\n*_`#>$\"'“”‘’「」"
_FINAL = ".,;:!?。、；：！？~"
_DECORATION = _QUOTES + _FINAL
_MARKUP = re.compile(r"[*_`#$]|^\s*>")
_HYPHEN = re.compile(r"(?<=\w)[-_\u2010\u2011](?=\w)")
_WRAPPED = re.compile(r"\[\[([^\[\]]+)\]\]|\[([^\[\]]+)\]|\(([^()]+)\)|\\boxed\{([^{}]+)\}|<([^<>]+)>")
_HEADING = re.compile(r"^\[[^\[\]\n]{1,80}\][ \t]*$", re.MULTILINE)
_BRACKETS = re.compile(r"\[\[([^\[\]\n]{1,100})\]\]")
# What a judge calls its verdict, in the languages of the built-in prompts.
_NAME = (
    r"(?:(?:final|overall|my)[ ]{1,3}){0,2}(?:rating|score|grade|verdict|judge?ment|conclusion|level|better|winner|"
    r"support(?:[ ]level)?|final answer)|评分|打分|得分|分数|总分|支持程度|支持度|等级|结论|判断|更好"
)
_IS = r"(?:is|of|at|as|=|would be|should be|will be|应为|应是|应该是|为|是)"
_ASSIGNED = rf"(?:{_NAME})\s{{0,4}}(?:[:=]|[-–—](?=\s)|{_IS}(?=\W))\s{{0,4}}"
_INTRODUCTION = re.compile(
    rf"(?:{_NAME}|\bin the end|\bfinally|\boverall|最终|最后)[\s:*_`\"“-]{{0,6}}(?:{_IS}[\s:*_`\"“]{{0,4}})?$", re.I
)
_CLOSING_LINE = re.compile(
    rf"[-•\s]{{0,4}}(?:(?:so|thus|therefore|hence|the)\b[ ,]{{0,3}}){{0,3}}{_ASSIGNED}(?:{_IS}\s{{0,4}})?(\S.*)", re.I
)
_PREFIX = re.compile(rf"^{_ASSIGNED}", re.I)
