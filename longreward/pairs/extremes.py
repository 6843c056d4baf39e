"""Which two of a prompt's responses make its pair, given what is known of their rewards.

>>> two_of([(8.0, 8.0), (5.0, 5.0), (8.0, 8.0), (7.0, 7.0)], "best_worst")
(0, 1)
>>> two_of([(8.0, 8.0), (5.0, 5.0), (8.0, 8.0), (7.0, 7.0)], "best_second")
(0, 3)
>>> two_of([(8.0, 8.0), (5.0, 5.0), (6.0, 6.0)], "best_worst", may_win=[False, True, True])
(2, 1)
"""

from collections.abc import Sequence
from typing import Literal

from longreward.records import Bounds
from longreward.reward.candidates import contenders, only

Selection = Literal["best_worst", "best_second"]


def select_pair(
    bounds: Sequence[Bounds | None], selection: Selection, may_win: Sequence[bool] | None = None
) -> tuple[int, int] | None:
    """Places of the chosen and the rejected one; None where the bounds leave one of them open.

    The chosen one is the best of those that `may_win` (None: all); the rejected one is the worst of all. `best_second`
    takes the best of those below the chosen one: where several share its reward, another of them is no second. Where
    all tie, it is the last one, as for `best_worst`. Without a response that takes part and may win: None.
    """
    candidates = bounds if may_win is None else only(bounds, may_win)
    best = _known(candidates, contenders(candidates).best)
    if best is None:
        return None
    if selection == "best_second":
        reward = bounds[best]
        assert reward is not None, "its reward is known"
        # What may not win can lie above the best. Where its bounds do not tell, it is the highest here, and open.
        below = only(bounds, [known is not None and known[0] < reward[0] for known in bounds])
        if any(known is not None for known in below):
            second = _known(bounds, contenders(below).best)
            return None if second is None else (best, second)
    worst = _known(bounds, contenders(bounds).worst)
    return None if worst is None else (best, worst)


def _known(bounds: Sequence[Bounds | None], places: Sequence[int]) -> int | None:
    """The one place, where its reward is known."""
    if len(places) != 1:
        return None
    known = bounds[places[0]]
    return places[0] if known is not None and known[0] == known[1] else None
