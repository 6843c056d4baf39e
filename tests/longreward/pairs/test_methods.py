"""Pairs of the control and of the data's own answers."""

import pytest

from longreward.data.formats import pair_from_row, pair_to_row
from longreward.pairs.methods import PairConfig, pair_metrics
from longreward.pairs.outcomes import NoPair
from longreward.pairs.simple_methods import consensus_pair, contrast_pair, random_pair
from longreward.records import Example, PreferencePair, Response

EXAMPLE = Example(id="7", document_id="d", context="c", query="q", answer="It was Ann Lee.")
ANY = PairConfig(min_scored=2)


def sampled(*texts: str) -> list[Response]:
    return [Response(id=f"7-{n}", example_id="7", query="q", text=text) for n, text in enumerate(texts)]


def ids(outcome: PreferencePair | NoPair) -> tuple[str, str]:
    assert isinstance(outcome, PreferencePair), outcome
    return outcome.chosen.id, outcome.rejected.id


def reason(outcome: PreferencePair | NoPair) -> str:
    assert isinstance(outcome, NoPair), outcome
    return outcome.reason


def test_random_pairs_depend_on_seed() -> None:
    responses = sampled(*"abcdefghij")
    drawn = [ids(random_pair(PairConfig(seed=seed), EXAMPLE, responses)) for seed in range(20)]
    assert drawn == [ids(random_pair(PairConfig(seed=seed), EXAMPLE, responses[::-1])) for seed in range(20)]
    assert len(set(drawn)) > 10


def test_random_pairs_have_no_position_bias() -> None:
    responses = sampled("a", "b")
    first = sum(
        ids(random_pair(ANY, EXAMPLE.model_copy(update={"id": str(n)}), responses))[0] == "7-0" for n in range(400)
    )
    assert 160 < first < 240  # four standard deviations around the half


def test_random_pair_has_two_different_texts() -> None:
    for seed in range(10):
        outcome = random_pair(PairConfig(min_scored=2, seed=seed), EXAMPLE, sampled("a", "a", "b", "a"))
        assert "7-2" in ids(outcome)
    assert reason(random_pair(ANY, EXAMPLE, sampled("a", "a", "a"))) == "all responses are the same"
    assert reason(random_pair(PairConfig(), EXAMPLE, sampled("a", "b"))) == "too few scored responses"
    assert reason(random_pair(ANY, EXAMPLE, [])) == "no responses"


def cut(*responses: Response) -> list[Response]:
    return [one.model_copy(update={"finish_reason": "length"}) for one in responses]


def test_random_pair_and_truncated_responses() -> None:
    whole, *others = sampled(*"abcdef")
    for seed in range(20):
        config = PairConfig(seed=seed)
        chosen, rejected = ids(random_pair(config, EXAMPLE, [whole, *cut(*others)]))
        assert chosen == "7-0"
        allowed = config.model_copy(update={"choose_truncated": True})
        assert ids(random_pair(allowed, EXAMPLE, cut(whole, *others))) == ids(
            random_pair(config, EXAMPLE, [whole, *others])
        )
        assert rejected != "7-0"
    assert reason(random_pair(ANY, EXAMPLE, cut(whole, *others))) == "all responses are truncated"


def test_contrast_chooses_reference_answer() -> None:
    outcome = contrast_pair(ANY, EXAMPLE, sampled("It was Ann Lee. ", "It was Bo."))
    assert isinstance(outcome, PreferencePair)
    assert (outcome.chosen.text, outcome.rejected.id) == ("It was Ann Lee.", "7-1")
    losers = {ids(contrast_pair(PairConfig(seed=s), EXAMPLE, sampled("a", "b", "c")))[1] for s in range(30)}
    assert losers == {"7-0", "7-1", "7-2"}


def test_contrast_reasons_without_pair() -> None:
    bare = EXAMPLE.model_copy(update={"answer": " "})
    assert reason(contrast_pair(ANY, bare, sampled("a", "b"))) == "no answer of its own"
    assert reason(contrast_pair(ANY, EXAMPLE, sampled("It was Ann Lee."))) == "its own answer was sampled"
    assert reason(contrast_pair(ANY, EXAMPLE, [])) == "no responses"


def test_rows_and_metrics_of_pairs_without_rewards() -> None:
    outcome = contrast_pair(ANY, EXAMPLE, sampled("It was Bo."))
    assert isinstance(outcome, PreferencePair)
    row = pair_to_row(outcome)
    assert (row["method"], row["win_reward"], row["win_idx"]) == ("contrast", None, "7-answer")
    assert pair_from_row(row) == outcome
    figures = pair_metrics([outcome])
    assert figures["pairs"] == 1.0
    assert "margin_mean" not in figures


def test_published_pair_has_method_longreward() -> None:
    row = {"idx": 7, "context": "c", "query": "q", "win_response": "a", "lose_response": "b"}
    assert (pair_from_row(row).method, pair_from_row(row).margin) == ("longreward", 10.0)


def test_consensus_chooses_the_response_that_agrees_most_with_the_others() -> None:
    responses = sampled("Ann Lee founded it", "It was Ann Lee", "Ann Lee", "no idea at all")
    outcome = consensus_pair(PairConfig(min_scored=4), EXAMPLE, responses)
    assert ids(outcome) == ("7-0", "7-3")
    assert isinstance(outcome, PreferencePair)
    # F1 of 7-0: with 7-1 three of four words in common, with 7-2 two of (4 + 2) / 2, with 7-3 none.
    assert outcome.chosen_reward == pytest.approx((3 / 4 + 2 / 3 + 0) / 3)
    assert outcome.rejected_reward == 0


def test_consensus_without_a_pair() -> None:
    assert reason(consensus_pair(ANY, EXAMPLE, sampled("a b", "a b"))) == "all responses are the same"
    assert reason(consensus_pair(ANY, EXAMPLE, sampled("a", "b"))) == "best and worst tie"
    assert reason(consensus_pair(ANY, EXAMPLE, sampled("a", "", "!"))) == "best and worst tie"
