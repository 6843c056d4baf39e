r"""Parse judge replies like the published code (THUDM/LongReward, `auto_scorer.py`), to compare results with it.

    parse_support("[[Fully supported]] (see also [[Passage]])")   # 0.0: the last bracket of letters counts
    parse_support("[[Not fully supported]]")                      # 1.0: it holds "fully"
    parse_extraction("1. Keld.\nNo relevant information on Tarn", "No relevant information")   # nothing

Two differences remain. A rating above 10 is not parsed because records hold scores from 0 to 10. `no_statement` is
understood if the prompt manifest names one; the published code repeats the request and then drops the response.
"""

import re
from collections.abc import Iterator

from longreward.judge.reply_parsing import ExtractedText

_RATING = re.compile(r"\[\[(\d{1,300}\.\d{1,300}|\d{1,300})\]\]")
_SUPPORT = re.compile(r"\[\[([ /a-zA-Z]+)\]\]")
_OPENING, _CLOSING = "<statement>", "</statement>"


def parse_rating(text: str) -> float | None:
    """Return the last `[[number]]` without spaces, sign or anything else in the brackets."""
    matches = _RATING.findall(text)
    rating = float(matches[-1]) if matches else -1.0
    return rating if 0 <= rating <= 10 else None


def parse_support(text: str) -> float | None:
    """Return the support of the last bracket of letters, spaces and slashes: "fully" 1, "partially" 0.5, else 0."""
    matches = _SUPPORT.findall(text)
    if not matches:
        return None
    # "[[Not fully supported]]" gives 1, as in the published code.
    label = matches[-1].lower()
    return 1.0 if "fully" in label else 0.5 if "partially" in label else 0.0


def parse_statements(text: str, no_statement: str | None) -> tuple[str, ...] | None:
    """Return the text of every `<statement>…</statement>`; an empty tuple if there is `no_statement` instead."""
    statements = tuple(statement.strip() for statement in _tagged(text) if statement.strip())
    if statements:
        return statements
    return () if no_statement is not None and no_statement in text else None


def parse_extraction(text: str, nothing_relevant: str) -> ExtractedText | None:
    """Return the reply; no text if it contains `nothing_relevant` anywhere."""
    if not text:
        return None
    return ExtractedText(None if nothing_relevant in text else text)


def _tagged(text: str) -> Iterator[str]:
    # A regular expression would take quadratic time on a text with opening tags only.
    position = 0
    while (opening := text.find(_OPENING, position)) >= 0 and (closing := text.find(_CLOSING, opening)) >= 0:
        yield text[opening + len(_OPENING) : closing]
        position = closing + len(_CLOSING)
