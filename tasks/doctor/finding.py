"""One thing that was looked at."""

from dataclasses import dataclass
from enum import StrEnum

from longreward.utils.redaction import redact


class Mark(StrEnum):
    """How it is."""

    GOOD = "✓"
    NOTE = "!"
    BAD = "✗"


@dataclass(frozen=True)
class Finding:
    """`said` is one line; `todo` says what to do where something can be done. Neither holds a secret."""

    mark: Mark
    subject: str
    said: str
    todo: str = ""


def good(subject: str, said: str) -> Finding:
    """Nothing to do."""
    return Finding(Mark.GOOD, subject, said)


def note(subject: str, said: str, todo: str = "") -> Finding:
    """Runs go on, but somebody may want to know."""
    return Finding(Mark.NOTE, subject, said, todo)


def bad(subject: str, said: str, todo: str) -> Finding:
    """Something that a run needs will not do."""
    return Finding(Mark.BAD, subject, said, todo)


def shown(url: str) -> str:
    """An address without the login and the query that it may hold, which can be secret."""
    return redact(url).partition("?")[0]
