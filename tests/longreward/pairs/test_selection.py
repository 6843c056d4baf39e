"""Which two responses make a pair, by what is known of their rewards."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longreward.errors import ConfigError
from longreward.pairs.methods import PairConfig
from longreward.pairs.outcomes import NoPair
from longreward.pairs.selection import pair_by_scores, select_pair
from longreward.records import DIMENSIONS, Bounds, Example, PreferencePair, Response, ScoredResponse, Verdict

EXAMPLE = Example(id="7", document_id="d", context="c", query="q")


def known(*rewards: float) -> list[Bounds | None]:
    return [(reward, reward) for reward in rewards]


def flat(number: int, score: float) -> ScoredResponse:
    response = Response(id=f"7-{number}", example_id="7", query="q", text=f"text {number}")
    return ScoredResponse(response=response, verdicts={d: Verdict(score=score) for d in DIMENSIONS})


def test_best_worst_and_best_second() -> None:
    assert select_pair(known(4, 9, 7, 1), "best_worst") == (1, 3)
    assert select_pair(known(4, 9, 7, 1), "best_second") == (1, 2)


def test_second_has_a_lower_reward() -> None:
    assert select_pair(known(9, 9, 7, 7, 1), "best_second") == (0, 2)


def test_all_tie() -> None:
    assert select_pair(known(5, 5, 5), "best_worst") == (0, 2)
    assert select_pair(known(5, 5, 5), "best_second") == (0, 2)


def test_response_without_a_reward() -> None:
    assert select_pair([None, (3.0, 3.0), None, (8.0, 8.0)], "best_second") == (3, 1)
    assert select_pair([None, None], "best_worst") is None


def test_open_second() -> None:
    bounds: list[Bounds | None] = [(9.0, 9.0), (4.0, 6.0), (5.0, 5.0), (1.0, 1.0)]
    assert select_pair(bounds, "best_worst") == (0, 3)
    assert select_pair(bounds, "best_second") is None  # 1 may be above 2, or below it


def plainly(rewards: list[float | None], may_win: list[bool], selection: str) -> tuple[int, int] | None:
    """The two by sorting, with every reward known."""
    there = [(reward, -index) for index, reward in enumerate(rewards) if reward is not None]
    winners = [(reward, index) for reward, index in there if may_win[-index]]
    if not winners:
        return None
    best = max(winners)
    below = [one for one in there if one[0] < best[0]]
    other = max(below) if selection == "best_second" and below else min(there)
    return -best[1], -other[1]


ENDS = st.sampled_from([2.0, 5.0, 8.0])
SOME = st.tuples(ENDS, ENDS).map(lambda ends: (min(ends), max(ends)))
RESPONSES = st.lists(st.tuples(st.one_of(SOME, SOME, st.none()), st.booleans()), min_size=1, max_size=5)


@settings(max_examples=200, deadline=None)
@given(RESPONSES, st.sampled_from(["best_worst", "best_second"]))
def test_bounds_decide_only_if_all_rewards_agree(responses, selection) -> None:
    bounds, may_win = [one for one, _ in responses], [may for _, may in responses]
    result = select_pair(bounds, selection, may_win)
    choices = [[None] if one is None else sorted({one[0], sum(one) / 2, one[1]}) for one in bounds]
    outcomes = {plainly(list(rewards), may_win, selection) for rewards in product(*choices)}
    known = all(one is None or one[0] == one[1] for one in bounds)
    assert result == plainly([one and one[0] for one in bounds], may_win, selection) if known else True
    assert result is None or outcomes == {result}


def test_certain_best_with_an_open_reward() -> None:
    # Weights other than those it was scored for leave its reward open, and the pair would need that.
    assert select_pair([(2.0, 2.0), (6.0, 9.0), (4.0, 4.0)], "best_worst") is None
    assert select_pair([(1.0, 3.0), (9.0, 9.0), (4.0, 4.0)], "best_worst") is None
    assert select_pair([(1.0, 3.0), (9.0, 9.0), (4.0, 4.0)], "best_second") == (1, 2)


def test_second_that_may_tie_with_the_best() -> None:
    assert select_pair([(9.0, 9.0), (7.0, 9.0), (5.0, 5.0), (1.0, 1.0)], "best_second") is None
    assert select_pair([(9.0, 9.0), (7.0, 9.0), (8.0, 9.0), (9.0, 9.0)], "best_second") is None


def test_margin_of_best_second() -> None:
    scored = [flat(0, 4), flat(1, 9), flat(2, 7.5), flat(3, 1)]
    config = PairConfig(min_scored=2, selection="best_second")
    outcome = pair_by_scores(config, EXAMPLE, scored)
    assert isinstance(outcome, PreferencePair)
    assert (outcome.chosen.id, outcome.rejected.id, outcome.margin) == ("7-1", "7-2", 1.5)
    wider = pair_by_scores(config.model_copy(update={"min_margin": 2.0}), EXAMPLE, scored)
    assert isinstance(wider, NoPair)
    assert wider.reason == "margin too small"


@pytest.mark.parametrize("method", ["contrast", "pairwise", "random"])
def test_best_second_needs_rewards(method: str) -> None:
    with pytest.raises(ConfigError, match=f"{method} gives no rewards"):
        PairConfig.parse({"method": method, "selection": "best_second"}, source="params.yaml")
