r"""What a judgment says, read in two ways.

    exact_rating("Well done. Rating: [[7]]")           7.0
    exact_rating("[[3]] was my first thought, [[8]]")  3.0     the first one, as the published code has it
    strict_rating("[[3]] was my first thought, [[8]]") (None, "several ratings: [[3]], [[8]]")

`exact` is the published code: the first `[[number]]`, else the first `[number]`; a pair's `[[A]]` before `[[B]]` before
`[[C]]`, wherever they stand. `strict` takes the asked form alone, one verdict, on the scale; else it gives the reason.
"""

import re
from typing import Literal

Winner = Literal["A", "B", "tie", "error"]


def exact_rating(judgment: str) -> float | None:
    """The rating as the published code reads it, whatever its size; None where it says −1."""
    found = _RATING.search(judgment) or _BACKUP.search(judgment)
    return float(found.group(1)) if found else None


def strict_rating(judgment: str) -> tuple[float | None, str | None]:
    """The one rating in double brackets, from 1 to 10; or why there is none."""
    if not judgment:
        return None, "the judge said nothing"
    found = {float(number): f"[[{number}]]" for number in _RATING.findall(judgment)}
    if not found:
        return None, f"no [[rating]] in the judgment: …{_end(judgment)}"
    if len(found) > 1:
        return None, f"several ratings: {', '.join(found.values())}"
    (rating,) = found
    return (rating, None) if LOWEST <= rating <= HIGHEST else (None, f"{found[rating]} is not on the scale of 1 to 10")


def exact_winner(judgment: str) -> Winner:
    """Who wins as the published code reads it."""
    return next((winner for mark, winner in _WINNERS if mark in judgment), "error")


def strict_winner(judgment: str) -> tuple[Winner, str | None]:
    """Who wins where the judgment holds one verdict alone; else ("error", why)."""
    if not judgment:
        return "error", "the judge said nothing"
    found = [(mark, winner) for mark, winner in _WINNERS if mark in judgment]
    if not found:
        return "error", f"no [[A]], [[B]] or [[C]] in the judgment: …{_end(judgment)}"
    if len(found) > 1:
        return "error", f"several verdicts: {', '.join(mark for mark, _ in found)}"
    return found[0][1], None


def _end(text: str) -> str:
    return text[-80:].replace("\n", " ")


LOWEST, HIGHEST = 1, 10
# The published patterns take digits of any script and any number of them, at which its next steps fail.
_NUMBER = r"[0-9]{1,15}\.?[0-9]{0,15}"
_RATING = re.compile(rf"\[\[({_NUMBER})\]\]")
_BACKUP = re.compile(rf"\[({_NUMBER})\]")
_WINNERS: tuple[tuple[str, Winner], ...] = (("[[A]]", "A"), ("[[B]]", "B"), ("[[C]]", "tie"))
