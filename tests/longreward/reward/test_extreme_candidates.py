"""Candidates for best and worst, compared with an exhaustive search."""

from hypothesis import given, settings
from hypothesis import strategies as st

from longreward.records import Bounds
from longreward.reward.adaptive import extreme_candidates


def test_tie_first_is_best_and_last_is_worst() -> None:
    # 7 is reached by indices 0 and 2 only together with the one that has it: 0 comes before it, 2 after it.
    assert extreme_candidates([(5.0, 7.0), (7.0, 7.0), (5.0, 7.0), (1.0, 1.0)]) == ((3,), (0, 1))
    assert extreme_candidates([(2.0, 5.0), (2.0, 2.0), (2.0, 5.0), (9.0, 9.0)]) == ((2, 1), (3,))


def test_unscored_responses_are_no_candidates() -> None:
    assert extreme_candidates([None, (3.0, 4.0), None]) == ((1,), (1,))
    assert extreme_candidates([None]) == extreme_candidates([]) == ((), ())


def bounds() -> st.SearchStrategy[list[Bounds | None]]:
    end = st.sampled_from([0.0, 2.5, 5.0, 7.5, 10.0])
    interval = st.tuples(end, end).map(lambda ends: (min(ends), max(ends)))
    return st.lists(st.one_of(interval, interval, interval, st.none()), max_size=6)


@settings(max_examples=200, deadline=None)
@given(bounds())
def test_candidates_are_exact(rewards: list[Bounds | None]) -> None:
    worst, best = extreme_candidates(rewards)
    for index, reward in enumerate(rewards):
        # A response ranks highest with its upper bound and the lower bounds of all others.
        optimistic = [bounds and bounds[1 if n == index else 0] for n, bounds in enumerate(rewards)]
        pessimistic = [bounds and bounds[0 if n == index else 1] for n, bounds in enumerate(rewards)]
        assert (index in best) == (reward is not None and _ranked(optimistic)[0] == index)
        assert (index in worst) == (reward is not None and _ranked(pessimistic)[-1] == index)


def _ranked(rewards: list[float | None]) -> list[int]:
    """Return the indices from best to worst as for pairs: by reward, ties by position."""
    indices = [index for index, reward in enumerate(rewards) if reward is not None]
    return sorted(indices, key=lambda index: -(rewards[index] or 0.0))
