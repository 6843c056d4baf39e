"""What may be used of a reply that was cut at its token limit (`finish_reason: length`).

A function of the type `ReadTruncated` gets the cut text and says what stands in it, and whether that is all that the
question asked for. None: nothing can be used, and the question is asked again with a larger limit.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class TruncatedReply(Generic[T]):
    """What was read from a cut reply. `is_complete`: the cut fell behind everything that was asked for."""

    value: T
    is_complete: bool


ReadTruncated = Callable[[str], TruncatedReply[T] | None]


def truncated_verdict(read: Callable[[str], T | None]) -> ReadTruncated[T]:
    """Accept a verdict that stands on a line of its own, or at the end of one, where no other verdict contradicts it.

    A cut analysis may quote a rating before it comes to its own ("it calls itself [[10]], but"), so a bracket within a
    line is no verdict. Small models go on with the next example of a few-shot prompt after their verdict until the
    limit; where that example has another verdict, nobody can say which one counts.
    """

    def read_truncated(text: str) -> TruncatedReply[T] | None:
        lines = text.split("\n")
        if not _ends_with_bracket(lines[-1]):
            lines.pop()  # the cut fell into this line
        verdicts = [value for line in lines if _is_verdict(line) and (value := read(line)) is not None]
        if not verdicts or any(value != verdicts[0] for value in verdicts):
            return None
        return TruncatedReply(verdicts[0], is_complete=True)

    return read_truncated


def truncated_list(read: Callable[[str], T | None], *, end_tag: str | None = None) -> ReadTruncated[T]:
    """Accept the items before the cut: up to the last `</end_tag>` where there is one, else all lines but the last."""
    closing = re.compile(rf"</{re.escape(end_tag)}\s*>", re.IGNORECASE) if end_tag else None

    def read_truncated(text: str) -> TruncatedReply[T] | None:
        end = 0
        for match in closing.finditer(text) if closing else ():
            end = match.end()
        value = read(text[:end] if end else text.rpartition("\n")[0])
        return TruncatedReply(value, is_complete=False) if value else None

    return read_truncated


def truncated_tags(read: Callable[[str], T | None]) -> ReadTruncated[T]:
    """Accept what `read` finds, for a reader that takes only what stands between an opening and a closing tag."""

    def read_truncated(text: str) -> TruncatedReply[T] | None:
        value = read(text)
        return None if value is None else TruncatedReply(value, is_complete=True)

    return read_truncated


def _is_verdict(line: str) -> bool:
    # A lone "1." may be the number of a point: a parser that sees no other line takes it for the whole reply.
    is_label = len(line.strip()) <= VERDICT_LINE and any(character.isalpha() for character in line)
    return is_label or _ends_with_bracket(line)


def _ends_with_bracket(line: str) -> bool:
    return line.rstrip(" \t\r.*_`").endswith("]]")


VERDICT_LINE = 40  # characters of a line such as "Rating: 8" or "**Support: [[Fully supported]]**"
