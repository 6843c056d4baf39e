"""The best and the worst of some, by comparing two at a time, in as few comparisons as can do.

    first round   0-1  2-3  4-5  6-7  8-9      winners and losers
    then          a knockout of the winners for the best, one of the losers for the worst, side by side
    at last       the best against the worst, so that a pair never rests on a chain of ties

For n that is n / 2 + 2 (n / 2 - 1) + 1 comparisons, 14 for ten responses, where a sort asks about 25 and all against
all 45. A knockout alone (n - 1 = 9) knows the best and not the worst.
"""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Literal

from longreward.utils.concurrency import gather

Sign = Literal[-1, 0, 1]
Compare = Callable[[int, int], Coroutine[Any, Any, Sign]]
"""1 where the first place is better, -1 where the second is, 0 where neither."""


def most_comparisons(count: int) -> int:
    """What `best_and_worst` asks of `count` at most.

    >>> [most_comparisons(n) for n in (1, 2, 3, 10)]
    [0, 2, 4, 14]
    """
    return count // 2 + 2 * (-(-count // 2) - 1) + 1 if count > 1 else 0


async def best_and_worst(count: int, compare: Compare, may_win: Sequence[bool] | None = None) -> tuple[int, int] | None:
    """Two places, the first of which was found better than the second; None where their comparison says otherwise.

    In a tie the earlier place goes on to be the best, and the later to be the worst, as elsewhere. Only what `may_win`
    (None: all) becomes the best: of a couple with one such place, that one goes on whatever the comparison says.
    """
    allowed = [True] * count if may_win is None else may_win
    if count < 2 or not any(allowed):
        return None
    couples = [(place, place + 1) for place in range(0, count - 1, 2)]
    signs = await gather(compare(*couple) for couple in couples)
    winners = []
    for (first, second), sign in zip(couples, signs, strict=True):
        if allowed[first] and allowed[second]:
            winners.append(first if sign >= 0 else second)
        elif allowed[first] or allowed[second]:
            winners.append(first if allowed[first] else second)
    losers = [second if sign >= 0 else first for (first, second), sign in zip(couples, signs, strict=True)]
    odd = [count - 1] if count % 2 else []
    best, worst = await gather(
        [
            _knockout([*winners, *(place for place in odd if allowed[place])], compare, better=True),
            _knockout([*losers, *odd], compare, better=False),
        ]
    )
    return (best, worst) if best != worst and await compare(best, worst) == 1 else None


async def _knockout(places: Sequence[int], compare: Compare, *, better: bool) -> int:
    """Rounds of neighbours, until one is left."""
    while len(places) > 1:
        ordered = sorted(places)
        couples = [(ordered[at], ordered[at + 1]) for at in range(0, len(ordered) - 1, 2)]
        signs = await gather(compare(*couple) for couple in couples)
        kept = [
            first if (sign >= 0) == better else second for (first, second), sign in zip(couples, signs, strict=True)
        ]
        places = kept + ([ordered[-1]] if len(ordered) % 2 else [])
    return places[0]
