"""Pairs under other weights, of fewer responses, and of responses that were not scored in full."""

import pytest

from longreward.errors import ConfigError
from longreward.pairs.methods import PairConfig, require_decided
from longreward.pairs.outcomes import NoPair
from longreward.pairs.selection import pair_by_scores
from longreward.records import DIMENSIONS, Bounds, Example, PreferencePair, Response, ScoredResponse, Verdict

EXAMPLE = Example(id="7", document_id="d", context="c", query="q")


def scored(number: int, *known: float | Bounds | None) -> ScoredResponse:
    """Scores in the order helpfulness, logicality, faithfulness, completeness; a pair of numbers is bounds."""
    verdicts = {
        dimension: Verdict(score=None, bounds=score) if isinstance(score, tuple) else Verdict(score=score)
        for dimension, score in zip(DIMENSIONS, known, strict=True)
    }
    return ScoredResponse(
        response=Response(id=f"7-{number}", example_id="7", query="q", text=f"text {number}"), verdicts=verdicts
    )


def paired(scored: list[ScoredResponse], /, **settings: object) -> PreferencePair | NoPair:
    return pair_by_scores(PairConfig.model_validate({"min_scored": 2, **settings}), EXAMPLE, scored)


def ids(outcome: PreferencePair | NoPair) -> tuple[str, str]:
    assert isinstance(outcome, PreferencePair), outcome
    return outcome.chosen.id, outcome.rejected.id


THREE = [scored(0, 9, 8, 2, 8), scored(1, 4, 5, 9, 6), scored(2, 6, 6, 6, 7)]


def test_weights_change_pair_and_rewards() -> None:
    assert ids(paired(THREE)) == ("7-0", "7-1")  # 6.75, 6, 6.25
    faithful = paired(THREE, weights={"faithfulness": 5})  # (25 + 10) / 8, (15 + 45) / 8, (19 + 30) / 8
    assert ids(faithful) == ("7-1", "7-0")
    assert isinstance(faithful, PreferencePair)
    assert (faithful.chosen_reward, faithful.rejected_reward) == (7.5, 4.375)


def test_equal_weights_of_any_size() -> None:
    twice = dict.fromkeys(DIMENSIONS, 2.0)
    assert paired(THREE, weights=twice) == paired(THREE)


def test_dimension_with_weight_0_may_be_unscored() -> None:
    unscored = scored(3, 10, 10, None, 10)
    assert ids(paired([*THREE, unscored])) == ("7-0", "7-1")
    assert ids(paired([*THREE, unscored], weights={"faithfulness": 0})) == ("7-3", "7-1")


def test_all_weights_0_is_an_error() -> None:
    with pytest.raises(ConfigError, match="give at least one dimension a weight"):
        PairConfig.parse({"weights": dict.fromkeys(DIMENSIONS, 0)}, source="params.yaml")


def test_number_of_responses() -> None:
    assert ids(paired(THREE[::-1], responses=2)) == ("7-0", "7-1")
    better = [*THREE, scored(3, 10, 10, 10, 10)]
    assert ids(paired(better)) == ("7-3", "7-1")
    assert ids(paired(better, responses=3)) == ("7-0", "7-1")


OPEN = [
    scored(0, 9, 9, 9, 9),
    scored(1, 5, 5, (0.0, 10.0), 6),  # 4 to 6.5
    scored(2, 5, 5, (4.0, 9.0), 6),  # 5 to 6.25
    scored(3, 1, 1, 1, 1),
]


def test_open_responses_count_for_min_scored() -> None:
    assert ids(paired(OPEN, min_scored=4)) == ("7-0", "7-3")
    outcome = paired(OPEN, min_scored=5)
    assert isinstance(outcome, NoPair)
    assert (outcome.reason, outcome.responses, outcome.scored) == ("too few scored responses", 4, 4)


def test_open_best_or_worst_needs_the_full_strategy() -> None:
    outcome = paired(OPEN, responses=3)  # without 7-3 the worst is 7-1 or 7-2
    assert isinstance(outcome, NoPair)
    assert outcome.reason == "needs the full strategy"
    with pytest.raises(ConfigError, match=r"1 prompts, such as 7, .* Set score.strategy: full"):
        require_decided([outcome])
    assert paired(OPEN, weights={"faithfulness": 1000}, responses=3) == outcome


def test_open_reward_of_a_certain_best_needs_the_full_strategy() -> None:
    # Left out as neither best nor worst under equal weights: 4.5 to 7, against 8 and 1.
    left_out = scored(1, 9, (0.0, 10.0), 9, (0.0, 0.0))
    responses = [scored(0, 6, 8, 8, 10), left_out, scored(2, 1, 1, 1, 1)]
    assert ids(paired(responses)) == ("7-0", "7-2")
    # By helpfulness alone it is the best, and its reward is known again.
    alone = dict.fromkeys(DIMENSIONS, 0.0) | {"helpfulness": 1.0}
    assert ids(paired(responses, weights=alone)) == ("7-1", "7-2")
    # With a little of logicality it is the best whatever that is: 8.18 to 9.09 against 6.18.
    outcome = paired(responses, weights=alone | {"logicality": 0.1})
    assert isinstance(outcome, NoPair)
    assert outcome.reason == "needs the full strategy"


def test_require_decided_ignores_other_reasons() -> None:
    require_decided([paired([]), paired([scored(0, 5, 5, 5, 5), scored(1, 5, 5, 5, 5)])])


def test_bounds_that_decide_make_a_pair() -> None:
    assert ids(paired(OPEN, weights={"faithfulness": 0}, responses=3)) == ("7-0", "7-2")  # 9, and twice 16 / 3
    require_decided([paired(OPEN, weights={"faithfulness": 2})])


def test_missing_weights_are_1() -> None:
    assert PairConfig.model_validate({"weights": {"logicality": 0.5}}).weights == {
        "helpfulness": 1.0,
        "logicality": 0.5,
        "faithfulness": 1.0,
        "completeness": 1.0,
    }
