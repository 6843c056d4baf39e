"""The result of one check."""

from dataclasses import dataclass
from enum import StrEnum

from longreward.utils.redaction import redact


class Level(StrEnum):
    """How serious a finding is."""

    OK = "✓"
    NOTE = "!"
    FAILURE = "✗"


@dataclass(frozen=True)
class Finding:
    """What a check found. Neither text contains a secret."""

    level: Level
    subject: str
    message: str
    """One line."""
    advice: str = ""
    """What to do, if anything."""


def ok(subject: str, message: str) -> Finding:
    """Nothing to do."""
    return Finding(Level.OK, subject, message)


def note(subject: str, message: str, advice: str = "") -> Finding:
    """Runs work, but the user may want to know."""
    return Finding(Level.NOTE, subject, message, advice)


def failure(subject: str, message: str, advice: str) -> Finding:
    """A run would fail."""
    return Finding(Level.FAILURE, subject, message, advice)


def public_url(url: str) -> str:
    """Return an address without its login and query, which may be secret."""
    return redact(url).partition("?")[0]
