import pytest

from longreward.pairing import PairConfig, WithoutPair, make_pairs, pair, pair_figures
from longreward.records import DIMENSIONS, Example, PreferencePair, Response, ScoredResponse, Verdict

EXAMPLE = Example(id="7", document_id="d", context="c", query="q")


def scored(number: int, *scores: float | None) -> ScoredResponse:
    response = Response(id=f"7-{number}", example_id="7", query="q", text=f"text {number}")
    return ScoredResponse(
        response=response, verdicts={d: Verdict(score=s) for d, s in zip(DIMENSIONS, scores, strict=True)}
    )


def flat(number: int, score: float | None) -> ScoredResponse:
    return scored(number, score, score, score, score)


def test_the_best_stands_against_the_worst_by_the_mean_of_four_scores() -> None:
    outcome = pair(PairConfig(min_scored=3), EXAMPLE, [scored(0, 9, 9, 9, 1), scored(1, 8, 8, 8, 8), flat(2, 5)])
    assert isinstance(outcome, PreferencePair)
    assert (outcome.chosen.id, outcome.chosen_reward) == ("7-1", 8.0)
    assert (outcome.rejected.id, outcome.rejected_reward) == ("7-2", 5.0)


def test_equal_rewards_take_the_first_best_and_the_last_worst_whatever_order_they_arrive_in() -> None:
    responses = [flat(n, score) for n, score in enumerate([9, 9, 3, 3, 5, 4, 4, 4, 4, 4, 4])]
    for arrived in (responses, responses[::-1]):
        outcome = pair(PairConfig(), EXAMPLE, arrived)
        assert isinstance(outcome, PreferencePair)
        assert (outcome.chosen.id, outcome.rejected.id) == ("7-0", "7-3")


@pytest.mark.parametrize(
    ("responses", "config", "reason"),
    [
        ([], PairConfig(), "no responses"),
        ([flat(n, n) for n in range(4)], PairConfig(), "too few scored responses"),
        ([*(flat(n, n) for n in range(4)), flat(4, None)], PairConfig(), "too few scored responses"),
        ([flat(n, 6) for n in range(5)], PairConfig(), "best and worst tie"),
        ([flat(n, 6 + n / 10) for n in range(5)], PairConfig(min_margin=0.5), "margin too small"),
    ],
)
def test_a_prompt_without_a_pair_has_a_reason(responses: list[ScoredResponse], config: PairConfig, reason: str) -> None:
    outcome = pair(config, EXAMPLE, responses)
    assert isinstance(outcome, WithoutPair)
    assert outcome.reason == reason


def test_a_margin_that_is_just_reached_makes_a_pair() -> None:
    responses = [flat(n, score) for n, score in enumerate([6, 6, 6, 6, 6.5])]
    assert isinstance(pair(PairConfig(min_margin=0.5), EXAMPLE, responses), PreferencePair)


def test_a_response_without_one_of_its_scores_takes_no_part() -> None:
    best_but_incomplete = scored(9, 10, 10, None, 10)
    outcome = pair(PairConfig(min_scored=2), EXAMPLE, [best_but_incomplete, flat(0, 5), flat(1, 4)])
    assert isinstance(outcome, PreferencePair)
    assert outcome.chosen.id == "7-0"


def test_every_example_has_one_outcome_and_figures_count_them() -> None:
    other = EXAMPLE.model_copy(update={"id": "8"})
    outcomes = list(make_pairs(PairConfig(min_scored=2), [EXAMPLE, other], [flat(0, 5), flat(1, 4)]))
    assert pair_figures(outcomes) == {
        "pairs": 1.0,
        "without_pair": 1.0,
        "without_pair/no_responses": 1.0,
        "margin_mean": 1.0,
        "chosen_characters_mean": 6.0,
        "rejected_characters_mean": 6.0,
    }
