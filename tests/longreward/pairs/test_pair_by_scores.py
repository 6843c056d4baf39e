import pytest

from longreward.pairs.methods import PairConfig, pair_metrics
from longreward.pairs.outcomes import NoPair
from longreward.pairs.selection import make_pairs, pair_by_scores
from longreward.records import DIMENSIONS, Example, PreferencePair, Response, ScoredResponse, Verdict

EXAMPLE = Example(id="7", document_id="d", context="c", query="q")


def scored(number: int, *scores: float | None) -> ScoredResponse:
    response = Response(id=f"7-{number}", example_id="7", query="q", text=f"text {number}")
    return ScoredResponse(
        response=response, verdicts={d: Verdict(score=s) for d, s in zip(DIMENSIONS, scores, strict=True)}
    )


def flat(number: int, score: float | None) -> ScoredResponse:
    return scored(number, score, score, score, score)


def test_best_against_worst_by_mean_score() -> None:
    outcome = pair_by_scores(
        PairConfig(min_scored=3), EXAMPLE, [scored(0, 9, 9, 9, 1), scored(1, 8, 8, 8, 8), flat(2, 5)]
    )
    assert isinstance(outcome, PreferencePair)
    assert (outcome.chosen.id, outcome.chosen_reward) == ("7-1", 8.0)
    assert (outcome.rejected.id, outcome.rejected_reward) == ("7-2", 5.0)


def test_ties_do_not_depend_on_input_order() -> None:
    responses = [flat(n, score) for n, score in enumerate([9, 9, 3, 3, 5, 4, 4, 4, 4, 4, 4])]
    for arrived in (responses, responses[::-1]):
        outcome = pair_by_scores(PairConfig(), EXAMPLE, arrived)
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
def test_reasons_without_a_pair(responses: list[ScoredResponse], config: PairConfig, reason: str) -> None:
    outcome = pair_by_scores(config, EXAMPLE, responses)
    assert isinstance(outcome, NoPair)
    assert outcome.reason == reason


def test_margin_equal_to_min_margin_makes_a_pair() -> None:
    responses = [flat(n, score) for n, score in enumerate([6, 6, 6, 6, 6.5])]
    assert isinstance(pair_by_scores(PairConfig(min_margin=0.5), EXAMPLE, responses), PreferencePair)


def test_incomplete_response_takes_no_part() -> None:
    best_but_incomplete = scored(9, 10, 10, None, 10)
    outcome = pair_by_scores(PairConfig(min_scored=2), EXAMPLE, [best_but_incomplete, flat(0, 5), flat(1, 4)])
    assert isinstance(outcome, PreferencePair)
    assert outcome.chosen.id == "7-0"


def test_one_outcome_per_example_and_metrics() -> None:
    # Two pairs of texts of 3 and 8 and of 10 and 1 characters, 1 and 4 apart; two prompts without responses, one tie.
    texts = {"7": ("two", "a longer"), "8": ("the better", "x"), "9": (), "10": ("same", "as good"), "11": ()}
    scores = {"7": (5, 4), "8": (9, 5), "10": (6, 6)}
    given = [
        flat(number, score).model_copy(
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


def truncated(one: ScoredResponse) -> ScoredResponse:
    return one.model_copy(update={"response": one.response.model_copy(update={"finish_reason": "length"})})


def pair_or_reason(outcome: PreferencePair | NoPair) -> tuple[str, str] | str:
    return outcome.reason if isinstance(outcome, NoPair) else (outcome.chosen.id, outcome.rejected.id)


TWO = PairConfig(min_scored=2)
ALLOWED = PairConfig(min_scored=2, choose_truncated=True)


def test_truncated_response_is_not_chosen_by_default() -> None:
    best = [truncated(flat(0, 9)), flat(1, 6), flat(2, 8), flat(3, 7)]
    assert pair_or_reason(pair_by_scores(TWO, EXAMPLE, best)) == ("7-2", "7-1")
    assert pair_or_reason(pair_by_scores(ALLOWED, EXAMPLE, best)) == ("7-0", "7-1")
    worst = [flat(0, 6), truncated(flat(1, 2)), flat(2, 8)]
    assert (
        pair_or_reason(pair_by_scores(TWO, EXAMPLE, worst))
        == pair_or_reason(pair_by_scores(ALLOWED, EXAMPLE, worst))
        == ("7-2", "7-1")
    )


def test_reasons_of_truncation() -> None:
    assert (
        pair_or_reason(pair_by_scores(TWO, EXAMPLE, [truncated(flat(0, 9)), truncated(flat(1, 2))]))
        == "all responses are truncated"
    )
    only_better = [truncated(flat(0, 9)), flat(1, 4), truncated(flat(2, 5))]
    assert pair_or_reason(pair_by_scores(TWO, EXAMPLE, only_better)) == "only truncated responses are better"
    assert (
        pair_or_reason(pair_by_scores(TWO, EXAMPLE, [flat(0, 5), truncated(flat(1, 5)), flat(2, 5)]))
        == "best and worst tie"
    )
    # That a complete one is there does not help where it is unscored.
    assert pair_or_reason(
        pair_by_scores(TWO, EXAMPLE, [truncated(flat(0, 9)), flat(1, None), truncated(flat(2, 5))])
    ) == ("all responses are truncated")
    # The margin is that of the two that could make a pair.
    narrow = [truncated(flat(0, 9)), flat(1, 5), flat(2, 4.5)]
    assert (
        pair_or_reason(pair_by_scores(TWO.model_copy(update={"min_margin": 1.0}), EXAMPLE, narrow))
        == "margin too small"
    )


def test_second_best_may_be_truncated() -> None:
    second = TWO.model_copy(update={"selection": "best_second"})
    scored_ones = [flat(0, 3), truncated(flat(1, 9)), truncated(flat(2, 6)), flat(3, 7), flat(4, 5)]
    assert pair_or_reason(pair_by_scores(second, EXAMPLE, scored_ones)) == ("7-3", "7-2")
    tied = [flat(0, 3), truncated(flat(1, 7)), flat(2, 7), truncated(flat(3, 9))]
    assert pair_or_reason(pair_by_scores(second, EXAMPLE, tied)) == ("7-2", "7-0")


def test_metrics_of_truncation_and_length() -> None:
    def of(name: str, length: int, score: float, *, cut: bool) -> ScoredResponse:
        one = flat(int(name[-1]), score)
        reason = "length" if cut else "stop"
        update = {"id": name, "example_id": name[0], "text": "x" * length, "finish_reason": reason}
        return one.model_copy(update={"response": one.response.model_copy(update=update)})

    examples = [EXAMPLE.model_copy(update={"id": name}) for name in "789"]
    responses = [
        *(of("7-0", 30, 8, cut=False), of("7-1", 5, 3, cut=True), of("7-2", 900, 9, cut=True)),
        *(of("8-0", 11, 2, cut=True), of("8-1", 60, 7, cut=False)),
        *(of("9-0", 400, 7, cut=True), of("9-1", 500, 6, cut=True)),
    ]
    assert pair_metrics(make_pairs(TWO, examples, responses)) == {
        "pairs": 2.0,
        "without_pair": 1.0,
        "without_pair/all_responses_are_truncated": 1.0,
        "margin_mean": 5.0,
        "chosen_characters_mean": 45.0,
        "rejected_characters_mean": 8.0,
        "chosen_truncated": 0.0,
        "rejected_truncated": 2.0,
    }
    allowed = pair_metrics(make_pairs(ALLOWED, examples, responses))
    assert (allowed["pairs"], allowed["chosen_truncated"], allowed["rejected_truncated"]) == (3.0, 2.0, 3.0)
