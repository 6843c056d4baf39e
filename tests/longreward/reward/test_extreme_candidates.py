"""Who can still be best or worst, against trying it out."""

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
    known = st.tuples(end, end).map(lambda ends: (min(ends), max(ends)))
    return st.lists(st.one_of(known, known, known, st.none()), max_size=6)


@settings(max_examples=200, deadline=None)
@given(bounds())
def test_candidates_are_exact(known: list[Bounds | None]) -> None:
    worst, best = extreme_candidates(known)
    for index, own in enumerate(known):
        # Its own chance is best with the most for itself and the least for all others.
        hopeful = [one and one[1 if n == index else 0] for n, one in enumerate(known)]
        fearful = [one and one[0 if n == index else 1] for n, one in enumerate(known)]
        assert (index in best) == (own is not None and _ranked(hopeful)[0] == index)
        assert (index in worst) == (own is not None and _ranked(fearful)[-1] == index)


def _ranked(rewards: list[float | None]) -> list[int]:
    """Indices from best to worst as pairs are made: sorted by reward, equal ones in their order."""
    indices = [index for index, reward in enumerate(rewards) if reward is not None]
    return sorted(indices, key=lambda index: -(rewards[index] or 0.0))
