"""Pairs by rewards: the best against the worst, other weights, fewer responses, open and truncated responses."""

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longreward.errors import ConfigError
from longreward.pairs.config import Selection
from longreward.pairs.methods import PairConfig, pair_metrics, require_decided
from longreward.pairs.outcomes import NoPair
from longreward.pairs.selection import make_pairs, pair_by_scores, select_pair
from longreward.records import DIMENSIONS, Bounds, Example, PreferencePair, Response, ScoredResponse, Verdict

EXAMPLE = Example(id="7", document_id="d", context="c", query="q")


def scored(number: int, *scores: float | Bounds | None) -> ScoredResponse:
    """Scores in the order helpfulness, logicality, faithfulness, completeness; a pair of numbers is bounds."""
    verdicts = {
        dimension: Verdict(score=None, bounds=score) if isinstance(score, tuple) else Verdict(score=score)
        for dimension, score in zip(DIMENSIONS, scores, strict=True)
    }
    response = Response(id=f"7-{number}", example_id="7", query="q", text=f"text {number}")
    return ScoredResponse(response=response, verdicts=verdicts)


def make_scored(number: int, score: float | None) -> ScoredResponse:
    return scored(number, score, score, score, score)


def truncate(scored: ScoredResponse) -> ScoredResponse:
    return scored.model_copy(update={"response": scored.response.model_copy(update={"finish_reason": "length"})})


def make_pair(responses: list[ScoredResponse], /, **settings: object) -> PreferencePair | NoPair:
    return pair_by_scores(PairConfig.model_validate({"min_scored": 2, **settings}), EXAMPLE, responses)


def pair_or_reason(responses: list[ScoredResponse], /, **settings: object) -> tuple[str, str] | str:
    """Return the ids of the chosen and the rejected response, or the reason for no pair."""
    outcome = make_pair(responses, **settings)
    return outcome.reason if isinstance(outcome, NoPair) else (outcome.chosen.id, outcome.rejected.id)


def test_best_against_worst_by_mean_score() -> None:
    outcome = make_pair([scored(0, 9, 9, 9, 1), scored(1, 8, 8, 8, 8), make_scored(2, 5)])
    assert isinstance(outcome, PreferencePair)
    assert (outcome.chosen.id, outcome.chosen_reward) == ("7-1", 8.0)
    assert (outcome.rejected.id, outcome.rejected_reward) == ("7-2", 5.0)


def test_ties_do_not_depend_on_input_order() -> None:
    responses = [make_scored(n, score) for n, score in enumerate([9, 9, 3, 3, 5, 4, 4, 4, 4, 4, 4])]
    assert pair_or_reason(responses) == pair_or_reason(responses[::-1]) == ("7-0", "7-3")


@pytest.mark.parametrize(
    ("responses", "settings", "reason"),
    [
        ([], {}, "no responses"),
        ([make_scored(n, n) for n in range(4)], {}, "too few scored responses"),
        ([*(make_scored(n, n) for n in range(4)), make_scored(4, None)], {}, "too few scored responses"),
        ([make_scored(n, 6) for n in range(5)], {}, "best and worst tie"),
        ([make_scored(n, 6 + n / 10) for n in range(5)], {"min_margin": 0.5}, "margin too small"),
    ],
)
def test_reasons_without_pair(responses: list[ScoredResponse], settings: dict[str, float], reason: str) -> None:
    assert pair_or_reason(responses, min_scored=5, **settings) == reason


def test_margin_equal_to_min_margin_makes_pair() -> None:
    assert isinstance(make_pair([make_scored(0, 6), make_scored(1, 6.5)], min_margin=0.5), PreferencePair)


def test_incomplete_response_excluded() -> None:
    best_but_incomplete = scored(9, 10, 10, None, 10)
    assert pair_or_reason([best_but_incomplete, make_scored(0, 5), make_scored(1, 4)]) == ("7-0", "7-1")


def test_one_outcome_per_example_and_metrics() -> None:
    # Two pairs of texts of 3 and 8 and of 10 and 1 characters, 1 and 4 apart; two prompts without responses, one tie.
    texts = {"7": ("two", "a longer"), "8": ("the better", "x"), "9": (), "10": ("same", "as good"), "11": ()}
    scores = {"7": (5, 4), "8": (9, 5), "10": (6, 6)}
    given = [
        make_scored(number, score).model_copy(
            update={"response": Response(id=f"{name}-{number}", example_id=name, query="q", text=texts[name][number])}
        )
        for name, both in scores.items()
        for number, score in enumerate(both)
    ]
    examples = [EXAMPLE.model_copy(update={"id": name}) for name in texts]
    outcomes = list(make_pairs(PairConfig(min_scored=2), examples, given))
    assert [outcome.id for outcome in outcomes if isinstance(outcome, PreferencePair)] == ["7", "8"]
    assert pair_metrics(outcomes) == {
        "pairs": 2.0,
        "without_pair": 3.0,
        "without_pair/no_responses": 2.0,
        "without_pair/best_and_worst_tie": 1.0,
        "margin_mean": 2.5,
        "chosen_characters_mean": 6.5,
        "rejected_characters_mean": 4.5,
        "chosen_truncated": 0.0,
        "rejected_truncated": 0.0,
    }


def test_truncated_response_is_not_chosen_by_default() -> None:
    best = [truncate(make_scored(0, 9)), make_scored(1, 6), make_scored(2, 8), make_scored(3, 7)]
    assert pair_or_reason(best) == ("7-2", "7-1")
    assert pair_or_reason(best, choose_truncated=True) == ("7-0", "7-1")
    worst = [make_scored(0, 6), truncate(make_scored(1, 2)), make_scored(2, 8)]
    assert pair_or_reason(worst) == pair_or_reason(worst, choose_truncated=True) == ("7-2", "7-1")


@pytest.mark.parametrize(
    ("responses", "reason"),
    [
        ([truncate(make_scored(0, 9)), truncate(make_scored(1, 2))], "all responses are truncated"),
        (
            [truncate(make_scored(0, 9)), make_scored(1, 4), truncate(make_scored(2, 5))],
            "only truncated responses are better",
        ),
        ([make_scored(0, 5), truncate(make_scored(1, 5)), make_scored(2, 5)], "best and worst tie"),
        # An unscored complete response does not help.
        (
            [truncate(make_scored(0, 9)), make_scored(1, None), truncate(make_scored(2, 5))],
            "all responses are truncated",
        ),
        # The margin is that of the responses that could make a pair.
        ([truncate(make_scored(0, 9)), make_scored(1, 5), make_scored(2, 4.5)], "margin too small"),
    ],
)
def test_reasons_of_truncation(responses: list[ScoredResponse], reason: str) -> None:
    assert pair_or_reason(responses, min_margin=1.0 if reason == "margin too small" else 0.0) == reason


def test_second_best_may_be_truncated() -> None:
    responses = [
        make_scored(0, 3),
        truncate(make_scored(1, 9)),
        truncate(make_scored(2, 6)),
        make_scored(3, 7),
        make_scored(4, 5),
    ]
    assert pair_or_reason(responses, selection="best_second") == ("7-3", "7-2")
    tied = [make_scored(0, 3), truncate(make_scored(1, 7)), make_scored(2, 7), truncate(make_scored(3, 9))]
    assert pair_or_reason(tied, selection="best_second") == ("7-2", "7-0")


def test_metrics_of_truncation_and_length() -> None:
    def response(name: str, length: int, score: float, *, cut: bool) -> ScoredResponse:
        scored = make_scored(int(name[-1]), score)
        reason = "length" if cut else "stop"
        update = {"id": name, "example_id": name[0], "text": "x" * length, "finish_reason": reason}
        return scored.model_copy(update={"response": scored.response.model_copy(update=update)})

    examples = [EXAMPLE.model_copy(update={"id": name}) for name in "789"]
    responses = [
        *(response("7-0", 30, 8, cut=False), response("7-1", 5, 3, cut=True), response("7-2", 900, 9, cut=True)),
        *(response("8-0", 11, 2, cut=True), response("8-1", 60, 7, cut=False)),
        *(response("9-0", 400, 7, cut=True), response("9-1", 500, 6, cut=True)),
    ]
    assert pair_metrics(make_pairs(PairConfig(min_scored=2), examples, responses)) == {
        "pairs": 2.0,
        "without_pair": 1.0,
        "without_pair/all_responses_are_truncated": 1.0,
        "margin_mean": 5.0,
        "chosen_characters_mean": 45.0,
        "rejected_characters_mean": 8.0,
        "chosen_truncated": 0.0,
        "rejected_truncated": 2.0,
    }
    allowed = pair_metrics(make_pairs(PairConfig(min_scored=2, choose_truncated=True), examples, responses))
    assert (allowed["pairs"], allowed["chosen_truncated"], allowed["rejected_truncated"]) == (3.0, 2.0, 3.0)


def exact(*rewards: float) -> list[Bounds | None]:
    return [(reward, reward) for reward in rewards]


def test_best_worst_and_best_second() -> None:
    assert select_pair(exact(4, 9, 7, 1), "best_worst") == (1, 3)
    assert select_pair(exact(4, 9, 7, 1), "best_second") == (1, 2)


def test_second_has_lower_reward() -> None:
    assert select_pair(exact(9, 9, 7, 7, 1), "best_second") == (0, 2)


def test_all_tie() -> None:
    assert select_pair(exact(5, 5, 5), "best_worst") == (0, 2)
    assert select_pair(exact(5, 5, 5), "best_second") == (0, 2)


def test_response_without_reward() -> None:
    assert select_pair([None, (3.0, 3.0), None, (8.0, 8.0)], "best_second") == (3, 1)
    assert select_pair([None, None], "best_worst") is None


def test_open_second() -> None:
    bounds: list[Bounds | None] = [(9.0, 9.0), (4.0, 6.0), (5.0, 5.0), (1.0, 1.0)]
    assert select_pair(bounds, "best_worst") == (0, 3)
    assert select_pair(bounds, "best_second") is None  # 1 may be above 2, or below it


def select_by_sorting(rewards: list[float | None], choosable: list[bool], selection: str) -> tuple[int, int] | None:
    """Select the pair by sorting all rewards."""
    ranked = [(reward, -index) for index, reward in enumerate(rewards) if reward is not None]
    winners = [(reward, index) for reward, index in ranked if choosable[-index]]
    if not winners:
        return None
    best = max(winners)
    lower = [candidate for candidate in ranked if candidate[0] < best[0]]
    rejected = max(lower) if selection == "best_second" and lower else min(ranked)
    return -best[1], -rejected[1]


ENDS = st.sampled_from([2.0, 5.0, 8.0])


SOME = st.tuples(ENDS, ENDS).map(lambda ends: (min(ends), max(ends)))


RESPONSES = st.lists(st.tuples(st.one_of(SOME, SOME, st.none()), st.booleans()), min_size=1, max_size=5)


@settings(max_examples=200, deadline=None)
@given(RESPONSES, st.sampled_from(["best_worst", "best_second"]))
def test_bounds_decide_only_if_all_rewards_agree(
    responses: list[tuple[Bounds | None, bool]], selection: Selection
) -> None:
    bounds, choosable = (list(column) for column in zip(*responses, strict=True))
    result = select_pair(bounds, selection, choosable)
    choices = [[None] if b is None else sorted({b[0], sum(b) / 2, b[1]}) for b in bounds]
    outcomes = {select_by_sorting(list(rewards), choosable, selection) for rewards in product(*choices)}
    if all(b is None or b[0] == b[1] for b in bounds):
        assert result == select_by_sorting([b and b[0] for b in bounds], choosable, selection)
    assert result is None or outcomes == {result}


def test_certain_best_with_open_reward() -> None:
    # Weights other than those it was scored for leave its reward open, and the pair would need that.
    assert select_pair([(2.0, 2.0), (6.0, 9.0), (4.0, 4.0)], "best_worst") is None
    assert select_pair([(1.0, 3.0), (9.0, 9.0), (4.0, 4.0)], "best_worst") is None
    assert select_pair([(1.0, 3.0), (9.0, 9.0), (4.0, 4.0)], "best_second") == (1, 2)


def test_second_that_may_tie_with_best() -> None:
    assert select_pair([(9.0, 9.0), (7.0, 9.0), (5.0, 5.0), (1.0, 1.0)], "best_second") is None
    assert select_pair([(9.0, 9.0), (7.0, 9.0), (8.0, 9.0), (9.0, 9.0)], "best_second") is None


def test_margin_of_best_second() -> None:
    responses = [make_scored(0, 4), make_scored(1, 9), make_scored(2, 7.5), make_scored(3, 1)]
    outcome = make_pair(responses, selection="best_second")
    assert isinstance(outcome, PreferencePair)
    assert (outcome.chosen.id, outcome.rejected.id, outcome.margin) == ("7-1", "7-2", 1.5)
    assert pair_or_reason(responses, selection="best_second", min_margin=2.0) == "margin too small"


@pytest.mark.parametrize("method", ["contrast", "pairwise", "random"])
def test_best_second_needs_rewards(method: str) -> None:
    with pytest.raises(ConfigError, match=f"{method} gives no rewards"):
        PairConfig.parse({"method": method, "selection": "best_second"}, source="params.yaml")


THREE = [scored(0, 9, 8, 2, 8), scored(1, 4, 5, 9, 6), scored(2, 6, 6, 6, 7)]


def test_weights_change_pair_and_rewards() -> None:
    assert pair_or_reason(THREE) == ("7-0", "7-1")  # 6.75, 6, 6.25
    faithful = make_pair(THREE, weights={"faithfulness": 5})  # (25 + 10) / 8, (15 + 45) / 8, (19 + 30) / 8
    assert isinstance(faithful, PreferencePair)
    assert (faithful.chosen.id, faithful.rejected.id) == ("7-1", "7-0")
    assert (faithful.chosen_reward, faithful.rejected_reward) == (7.5, 4.375)


def test_equal_weights_of_any_size() -> None:
    twice = dict.fromkeys(DIMENSIONS, 2.0)
    assert make_pair(THREE, weights=twice) == make_pair(THREE)


def test_dimension_with_weight_0_may_be_unscored() -> None:
    unscored = scored(3, 10, 10, None, 10)
    assert pair_or_reason([*THREE, unscored]) == ("7-0", "7-1")
    assert pair_or_reason([*THREE, unscored], weights={"faithfulness": 0}) == ("7-3", "7-1")


def test_all_weights_0_is_error() -> None:
    with pytest.raises(ConfigError, match="give at least one dimension a weight"):
        PairConfig.parse({"weights": dict.fromkeys(DIMENSIONS, 0)}, source="params.yaml")


def test_number_of_responses() -> None:
    assert pair_or_reason(THREE[::-1], responses=2) == ("7-0", "7-1")
    better = [*THREE, scored(3, 10, 10, 10, 10)]
    assert pair_or_reason(better) == ("7-3", "7-1")
    assert pair_or_reason(better, responses=3) == ("7-0", "7-1")


OPEN = [
    scored(0, 9, 9, 9, 9),
    scored(1, 5, 5, (0.0, 10.0), 6),  # 4 to 6.5
    scored(2, 5, 5, (4.0, 9.0), 6),  # 5 to 6.25
    scored(3, 1, 1, 1, 1),
]


def test_open_responses_count_for_min_scored() -> None:
    assert pair_or_reason(OPEN, min_scored=4) == ("7-0", "7-3")
    outcome = make_pair(OPEN, min_scored=5)
    assert isinstance(outcome, NoPair)
    assert (outcome.reason, outcome.responses, outcome.scored) == ("too few scored responses", 4, 4)


def test_open_best_or_worst_needs_full_strategy() -> None:
    outcome = make_pair(OPEN, responses=3)  # without 7-3 the worst is 7-1 or 7-2
    assert isinstance(outcome, NoPair)
    assert outcome.reason == "needs the full strategy"
    with pytest.raises(ConfigError, match=r"1 prompts, such as 7, .* Set score.strategy: full"):
        require_decided([outcome])
    assert make_pair(OPEN, weights={"faithfulness": 1000}, responses=3) == outcome


def test_open_reward_of_certain_best_needs_full_strategy() -> None:
    # Left out as neither best nor worst under equal weights: 4.5 to 7, against 8 and 1.
    left_out = scored(1, 9, (0.0, 10.0), 9, (0.0, 0.0))
    responses = [scored(0, 6, 8, 8, 10), left_out, scored(2, 1, 1, 1, 1)]
    assert pair_or_reason(responses) == ("7-0", "7-2")
    # By helpfulness alone it is the best, and its reward is known again.
    alone = dict.fromkeys(DIMENSIONS, 0.0) | {"helpfulness": 1.0}
    assert pair_or_reason(responses, weights=alone) == ("7-1", "7-2")
    # With a little of logicality it is the best whatever that is: 8.18 to 9.09 against 6.18.
    assert pair_or_reason(responses, weights=alone | {"logicality": 0.1}) == "needs the full strategy"


def test_require_decided_ignores_other_reasons() -> None:
    require_decided([make_pair([]), make_pair([scored(0, 5, 5, 5, 5), scored(1, 5, 5, 5, 5)])])


def test_bounds_that_decide_make_pair() -> None:
    assert pair_or_reason(OPEN, weights={"faithfulness": 0}, responses=3) == ("7-0", "7-2")  # 9, and twice 16 / 3
    require_decided([make_pair(OPEN, weights={"faithfulness": 2})])


def test_missing_weights_are_1() -> None:
    assert PairConfig.model_validate({"weights": {"logicality": 0.5}}).weights == {
        "helpfulness": 1.0,
        "logicality": 0.5,
        "faithfulness": 1.0,
        "completeness": 1.0,
    }
