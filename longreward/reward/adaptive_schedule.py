"""What to ask next under the strategy `extremes`: as little as possible until best and worst are certain.

Whoever has the highest reward in reach must be asked more before the best can be certain, and whoever has the lowest
before the worst can be. Asking these two alone, a question at a time, spares all that can be spared as long as each
response's questions come in a fixed order. Supports, each a small part of the reward, are asked for in larger steps: as
many as it takes for the response to leave the contest if the judge is hard on it (on the worst's side: kind to it) and
the others end as is to be expected. That costs about one call in a hundred and saves three rounds of four.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from longreward.records import Bounds
from longreward.reward.candidates import contenders


@dataclass(frozen=True)
class ScoringState:
    """What is known of one response's reward, and what may be asked about it."""

    bounds: Bounds
    expected: float
    """A guess of the reward, within the bounds; it decides about the order of questions alone, not about the pair."""
    waiting: int
    """Questions that may be asked now: one rating or listing, or the supports of all statements not verified yet."""
    step: float | None = None
    """What one support moves the reward by at most; None where the next question is a rating or a listing."""


def next_requests(
    standings: Sequence[ScoringState | None], complete: Sequence[bool] | None = None
) -> Mapping[int, int]:
    """How many questions to ask about which responses (places) at once; nothing where best and worst are certain.

    `standings` in the order of the responses; None for one that takes no part. `complete`: which responses were not
    truncated (None: none was). The best of these becomes certain too, since `pair.choose_truncated` decides later
    which one is chosen.
    """
    untruncated = (
        standings
        if complete is None
        else [one if whole else None for one, whole in zip(standings, complete, strict=True)]
    )
    asked: dict[int, int] = {}
    for group, side in ((standings, 1), (standings, 0), (untruncated, 1)):
        contest = contenders([None if standing is None else standing.bounds for standing in group])
        places = contest.best if side else contest.worst
        taking_part = [standing for standing in group if standing is not None]
        sign = 1 if side else -1
        mark = sign * max((_likely(standing, side, sign) for standing in taking_part), default=0.0)
        waiting = [(place, standing) for place in places if (standing := standings[place]) and standing.waiting]
        for number, (place, standing) in enumerate(waiting):
            beyond = sign * (standing.bounds[side] - mark)
            if number and (standing.step is None or beyond < 0):
                continue
            count = 1 if standing.step is None else max(1, math.ceil(beyond / standing.step - ROUNDING))
            asked[place] = max(asked.get(place, 0), min(count, standing.waiting))
    return asked


def _likely(standing: ScoringState, side: int, sign: int) -> float:
    """Where this response is likely to end at best (at worst), to be on the safe side nearer to its bound."""
    return sign * (standing.expected + CAUTION * (standing.bounds[side] - standing.expected))


CAUTION = 0.7  # simulated: 0 costs 3 % more calls and saves a third of the rounds, 0.9 saves 0.3 % for a third more
ROUNDING = 1e-9
