r"""Which of two answers a judge prefers, from the probabilities of one token; and in which order it was shown them.

    the judge's first token: {"m": -0.02, "M": -4.05}   → 2 - 0.98 = 1.02: the answer shown first, as `m`, is better

A preference lies between 1, the baseline's answer is better, and 2, the model's is; the model's win share is the
preference less 1.
"""

import math
import random
from dataclasses import dataclass

from longreward.chat_model import parse_logprobs

FIRST, SECOND = "m", "M"
TOP_LOGPROBS = 5
EQUAL = 1.5
"""The preference between two answers of the same text, which no judge is asked about."""


@dataclass(frozen=True)
class Shown:
    """A preference among the two as they were shown: 1, the first is better, to 2; `exact` as published code reads."""

    exact: float | None  # None: neither name is among the likeliest tokens, or the server gives no probabilities
    strict: float | None  # from the answer's text where there are no probabilities
    weighed: bool  # whether there were


def read_shown(text: str) -> Shown:
    """What the judge prefers.

    >>> read_shown('{"text": "M", "top_logprobs": [{"m": -3.0, "M": -3.0}]}')
    Shown(exact=1.5, strict=1.5, weighed=True)
    >>> read_shown("M")
    Shown(exact=None, strict=2.0, weighed=False)
    """
    answer = parse_logprobs(text)
    if answer.tokens:
        value = _weighted(answer.tokens[0].get(FIRST), answer.tokens[0].get(SECOND))
        return Shown(value, value, weighed=True)
    said = answer.text.strip().strip(".\"'`")
    return Shown(None, {FIRST: 1.0, SECOND: 2.0}.get(said), weighed=False)


def is_switched(instruction: str, *, seed: int = 0) -> bool:
    """Whether the model's answer is shown first: drawn from the instruction alone, as the library `alpaca_eval` does.

    >>> [is_switched(text) for text in ("a", "b", "c", "d")]
    [True, True, False, False]
    """
    return random.Random(f"is_switched_outputs{instruction}{seed}").choices([False, True], k=1)[0]


def unswitched(preference: float | None, switched: bool) -> float | None:
    """The preference among baseline and model, from that among the two as shown."""
    return 3 - preference if switched and preference is not None else preference


def _weighted(first: float | None, second: float | None) -> float | None:
    """2 less the first's share of both probabilities; a token that is not among the likeliest has none."""
    if first is None and second is None:
        return None
    if first is None or second is None:
        return 2.0 if first is None else 1.0
    # As a logistic of the difference, which neither overflows nor divides 0 by 0.
    odds = second - first
    return 2 - (1 / (1 + math.exp(odds)) if odds < 700 else 0.0)
