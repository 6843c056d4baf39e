"""Reads what a judge said. Every reader gives None where it cannot: the judge is then asked again.

Only the last bracket of a kind counts, as in the published code: the prompts ask for analysis first and the verdict at
the end, so that brackets which an analysis quotes from a response ("it claims [[10]]") do not count.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass


def read_rating(text: str) -> float | None:
    """The last `[[number]]`, where it is within 0 to 10.

    >>> read_rating("The answer calls itself [[10]], but misses the point.\\nRating: [[2]]")
    2.0
    """
    found = RATING.findall(text)
    rating = float(found[-1]) if found else -1.0
    return rating if 0 <= rating <= 10 else None


def read_support(text: str) -> float | None:
    """1 for a last bracket of `[[Fully supported]]`, 0.5 for `[[Partially supported]]`, 0 for other words in it.

    >>> read_support("Both facts are in passage 2. Support: [[Fully supported]]")
    1.0
    """
    found = [words for words in SUPPORT.findall(text) if words.strip(" /")]
    if not found:
        return None
    level = found[-1].strip().lower()
    return 1.0 if level.startswith("fully") else 0.5 if level.startswith("partially") else 0.0


def read_statements(text: str, no_statement: str | None) -> tuple[str, ...] | None:
    """The text of every `<statement>…</statement>`; an empty tuple where there is `no_statement` in their place.

    >>> read_statements("<statement>Keld is a village.</statement>", "<no_statement/>")
    ('Keld is a village.',)
    """
    found = tuple(statement.strip() for statement in _tagged(text) if statement.strip())
    if found:
        return found
    return () if no_statement is not None and no_statement in text else None


def _tagged(text: str) -> Iterator[str]:
    """What stands between tags; a pattern would take minutes over a text that only opens them."""
    place = 0
    while (opening := text.find(OPENING, place)) >= 0 and (closing := text.find(CLOSING, opening)) >= 0:
        yield text[opening + len(OPENING) : closing]
        place = closing + len(CLOSING)


@dataclass(frozen=True)
class Found:
    """What a part of a document holds on a question; None: nothing relevant."""

    text: str | None


def read_extraction(text: str, nothing_relevant: str) -> Found | None:
    """What was found, as the judge wrote it; a text that opens with `nothing_relevant` and lists no point is nothing.

    >>> read_extraction("No relevant information.", "No relevant information")
    Found(text=None)
    """
    text = text.strip()
    if not text:
        return None
    opening = text.lstrip("\"'“‘「*#-1. \n").lower()
    if opening.startswith(nothing_relevant.lower()) and not LISTED.search(text.partition("\n")[2]):
        return Found(None)
    return Found(text)


# Each takes time in proportion to the text, whatever it holds: no two repetitions can share a stretch of it.
RATING = re.compile(r"\[\[\s*(-?\d+(?:\.\d+)?)\s*\]\]")
SUPPORT = re.compile(r"\[\[([A-Za-z /]+)\]\]")
LISTED = re.compile(r"^[^\S\n]*(?:\d+[.、)]|[-*•])\s*\S", re.MULTILINE)
OPENING, CLOSING = "<statement>", "</statement>"
