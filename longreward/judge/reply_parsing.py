"""Find the verdict in a judge's reply: in double brackets, in JSON, or on the closing line.

    find_verdict("[[3]] at first. Rating: [[8]]", RATING)   # Verdict(value=8.0)

A parser must not guess: it returns a value only if the reply has one meaning; otherwise the request is repeated. Every
function takes time linear in the length of the reply.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Generic, TypeVar

from longreward.judge.reply_text import DECORATION, INTRODUCTION, find_closing_label, find_json_label, to_halfwidth

T = TypeVar("T")
_BRACKETS = re.compile(r"\[\[([^\[\]\n]{1,100})\]\]")
_HEADING = re.compile(r"^\[[^\[\]\n]{1,80}\][ \t]*$", re.MULTILINE)
_NEARBY = 60  # characters before and after a bracket that are considered


@dataclass(frozen=True)
class ExtractedText:
    """Information that the judge extracted from a part of a document; None: nothing relevant."""

    text: str | None


@dataclass(frozen=True)
class LabelFormat(Generic[T]):
    """The format of one kind of verdict."""

    parse: Callable[[str], T | None]
    """Return the value of a label; None for an unknown label."""
    resembles: Callable[[str], bool]
    """Return whether an unknown label was meant as a verdict ("Mostly supported"), unlike a reference in brackets
    ("Passage 2"), which is ignored."""
    keys: Collection[str]
    """JSON keys that may hold the label."""
    void_before: re.Pattern[str] | None = None
    """A continuation that invalidates the label before it, such as "/100"."""


@dataclass(frozen=True)
class Verdict(Generic[T]):
    """`value` is None if the labels of a reply are unknown or contradict each other."""

    value: T | None


def find_verdict(text: str, form: LabelFormat[T]) -> Verdict[T] | None:
    """Return the verdict of a reply: in double brackets, after "Rating:" on its last line, or in JSON.

    Of several brackets the last one counts if all agree, if a word like "Rating:" introduces it, or if it is the only
    one on a line of its own. Anything else has no clear verdict: "[[7]] or [[8]]", a repeated list of options, or a
    reply that continues with another example of the prompt. None if the reply has no verdict at all.
    """
    if (label := find_json_label(text, form.keys)) is not None:
        return Verdict(form.parse(label))
    closing_value = form.parse(find_closing_label(text, form.keys) or "")
    text = to_halfwidth(text)
    brackets = _brackets(text, form)
    if not brackets:
        return None if closing_value is None else Verdict(closing_value)
    *earlier, last = brackets
    # Small models continue with the next example of a few-shot prompt after their verdict, including its verdict: a
    # heading such as "[Question]" then separates two different ones.
    verdicts = [bracket for bracket in brackets if bracket.introduced]
    differing = [verdict for verdict in verdicts if verdict.value != verdicts[-1].value]
    if differing and _HEADING.search(text, differing[0].start, verdicts[-1].start):
        return Verdict(None)
    agree = all(bracket.value == last.value for bracket in earlier)
    is_only_line = last.on_own_line and not any(bracket.on_own_line or bracket.introduced for bracket in earlier)
    value = last.value if agree or last.introduced or is_only_line else None
    if closing_value is None or closing_value == value:
        return Verdict(value)
    # "It claims [[10]].\nRating: 3": the bracket is a quotation unless a word introduces it as a verdict, too.
    return Verdict(None if any(bracket.introduced for bracket in brackets) else closing_value)


@dataclass(frozen=True)
class _Bracket(Generic[T]):
    value: T | None
    introduced: bool  # "Rating:" or a similar word directly precedes it
    on_own_line: bool
    start: int


def _brackets(text: str, form: LabelFormat[T]) -> list[_Bracket[T]]:
    """Return the brackets that are a verdict or resemble one."""
    brackets: list[_Bracket[T]] = []
    for match in _BRACKETS.finditer(text):
        # A search for the start of the line would take quadratic time where one line holds all brackets.
        before = text[max(0, match.start() - _NEARBY) : match.start()].rpartition("\n")[2]
        after = text[match.end() : match.end() + _NEARBY].partition("\n")[0]
        introduced = INTRODUCTION.search(before) is not None
        on_own_line = not before.strip(DECORATION) and not after.strip(DECORATION)
        value = form.parse(match[1])
        if form.void_before is not None and form.void_before.match(after):
            value = None
        if value is not None or introduced or on_own_line or form.resembles(match[1]):
            brackets.append(_Bracket(value, introduced, on_own_line, match.start()))
    return brackets
