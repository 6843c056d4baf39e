"""Which responses can still be a prompt's best or its worst, given what is known of their rewards.

>>> contenders([(8.0, 8.0), (5.0, 7.0), (4.0, 4.0), (6.0, 9.0)])
Contenders(best=(3, 0), worst=(2,))

Equal rewards go by place: of them the first is the best and the last the worst, as pairs are made.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from longreward.records import Bounds


@dataclass(frozen=True)
class ExtremeCandidates:
    """Places of responses that can be the best, the highest reward in reach first, and the worst, the lowest first."""

    best: tuple[int, ...]
    worst: tuple[int, ...]

    def __contains__(self, place: int) -> bool:
        return place in self.best or place in self.worst


def only(bounds: Sequence[Bounds | None], kept: Sequence[bool]) -> list[Bounds | None]:
    """`bounds` with None for those that are not kept: they take no part."""
    return [known if keep else None for known, keep in zip(bounds, kept, strict=True)]


def contenders(bounds: Sequence[Bounds | None]) -> ExtremeCandidates:
    """`bounds` in the order of the responses, None for one that takes no part; without any, nobody contends.

    The answer is exact: a response that is named becomes the best (the worst) by some rewards within the bounds, and
    one that is not named by none. So the pair is known once all that are named have a known reward.
    """
    lows = sorted((known[0], -place) for place, known in enumerate(bounds) if known is not None)
    highs = sorted((known[1], -place) for place, known in enumerate(bounds) if known is not None)
    if not lows:
        return ExtremeCandidates((), ())
    # Whoever holds the highest low contends itself: its high is above all other lows.
    best = tuple(-place for high, place in reversed(highs) if (high, place) >= lows[-1])
    worst = tuple(-place for low, place in lows if (low, place) <= highs[0])
    return ExtremeCandidates(best, worst)
