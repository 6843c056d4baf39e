"""Decide which part of a reply is usable that was cut at its token limit (`finish_reason: length`).

A `TruncatedParser` function gets the truncated text and returns the value in it and whether this value is all that was
requested. It returns None if nothing is usable; the request is then repeated with a larger limit.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
VERDICT_LINE = 40  # length limit of a line such as "Rating: 8" or "**Support: [[Fully supported]]**"


@dataclass(frozen=True)
class TruncatedReply(Generic[T]):
    """The value in a truncated reply. `is_complete`: the reply was cut after everything that was requested."""

    value: T
    is_complete: bool


TruncatedParser = Callable[[str], TruncatedReply[T] | None]


def truncated_verdict(parse: Callable[[str], T | None]) -> TruncatedParser[T]:
    """Accept a verdict that has a line of its own, or ends a line, unless another verdict contradicts it.

    A truncated analysis may quote a rating before its own verdict ("it calls itself [[10]], but"), so a bracket within
    a line is no verdict. Small models continue with the next example of a few-shot prompt until the limit; if that
    example has another verdict, it is unclear which one counts.
    """

    def parse_truncated(text: str) -> TruncatedReply[T] | None:
        lines = text.split("\n")
        if not _ends_with_bracket(lines[-1]):
            lines.pop()  # this line is incomplete
        # A lone "1." may be the number of a list item: a parser that sees no other line takes it for the whole reply.
        verdict_lines = [
            line
            for line in lines
            if _ends_with_bracket(line) or (len(line.strip()) <= VERDICT_LINE and any(map(str.isalpha, line)))
        ]
        verdicts = [value for line in verdict_lines if (value := parse(line)) is not None]
        if not verdicts or any(value != verdicts[0] for value in verdicts):
            return None
        return TruncatedReply(verdicts[0], is_complete=True)

    return parse_truncated


def truncated_list(parse: Callable[[str], T | None], *, end_tag: str | None = None) -> TruncatedParser[T]:
    """Accept the items before the cut: up to the last `</end_tag>` if there is one, else all lines but the last."""
    closing = re.compile(rf"</{re.escape(end_tag)}\s*>", re.IGNORECASE) if end_tag else None

    def parse_truncated(text: str) -> TruncatedReply[T] | None:
        end = 0
        for match in closing.finditer(text) if closing else ():
            end = match.end()
        value = parse(text[:end] if end else text.rpartition("\n")[0])
        return TruncatedReply(value, is_complete=False) if value else None

    return parse_truncated


def truncated_tags(parse: Callable[[str], T | None]) -> TruncatedParser[T]:
    """Accept the result of a parser that reads only text between an opening and a closing tag."""

    def parse_truncated(text: str) -> TruncatedReply[T] | None:
        value = parse(text)
        return None if value is None else TruncatedReply(value, is_complete=True)

    return parse_truncated


def _ends_with_bracket(line: str) -> bool:
    return line.rstrip(" \t\r.*_`").endswith("]]")
