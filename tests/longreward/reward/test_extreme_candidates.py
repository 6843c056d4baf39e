"""Who can still be best or worst, against trying it out."""

from hypothesis import given, settings
from hypothesis import strategies as st

from longreward.records import Bounds
from longreward.reward.adaptive import ExtremeCandidates, extreme_candidates


def test_a_tie_goes_to_the_first_as_best_and_to_the_last_as_worst() -> None:
    # 7 is reached by places 0 and 2 only together with the one that has it: 0 comes before it, 2 after it.
    assert extreme_candidates([(5.0, 7.0), (7.0, 7.0), (5.0, 7.0), (1.0, 1.0)]) == ExtremeCandidates(
        best=(0, 1), worst=(3,)
    )
    assert extreme_candidates([(2.0, 5.0), (2.0, 2.0), (2.0, 5.0), (9.0, 9.0)]) == ExtremeCandidates(
        best=(3,), worst=(2, 1)
    )


def test_responses_that_take_no_part_do_not_count() -> None:
    assert extreme_candidates([None, (3.0, 4.0), None]) == ExtremeCandidates(best=(1,), worst=(1,))
    assert extreme_candidates([None]) == extreme_candidates([]) == ExtremeCandidates((), ())


def bounds() -> st.SearchStrategy[list[Bounds | None]]:
    end = st.sampled_from([0.0, 2.5, 5.0, 7.5, 10.0])
    known = st.tuples(end, end).map(lambda ends: (min(ends), max(ends)))
    return st.lists(st.one_of(known, known, known, st.none()), max_size=6)


@settings(max_examples=200, deadline=None)
@given(bounds())
def test_whoever_is_named_becomes_it_by_some_rewards_and_nobody_else_does(known: list[Bounds | None]) -> None:
    found = extreme_candidates(known)
    for place, own in enumerate(known):
        # Its own chance is best with the most for itself and the least for all others.
        hopeful = [one and one[1 if n == place else 0] for n, one in enumerate(known)]
        fearful = [one and one[0 if n == place else 1] for n, one in enumerate(known)]
        assert (place in found.best) == (own is not None and _ranked(hopeful)[0] == place)
        assert (place in found.worst) == (own is not None and _ranked(fearful)[-1] == place)


def _ranked(rewards: list[float | None]) -> list[int]:
    """Places from best to worst as pairs are made: sorted by reward, equal ones in their order."""
    places = [place for place, reward in enumerate(rewards) if reward is not None]
    return sorted(places, key=lambda place: -(rewards[place] or 0.0))
