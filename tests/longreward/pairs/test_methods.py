"""Pairs that need only the sampled responses: random, contrast and consensus."""

import pytest

from longreward.data.formats import pair_from_row, pair_to_row
from longreward.pairs.methods import PairConfig, pair_metrics
from longreward.pairs.outcomes import NoPair
from longreward.pairs.simple_methods import consensus_pair, contrast_pair, random_pair
from longreward.records import Example, PreferencePair, Response

EXAMPLE = Example(id="7", document_id="d", context="c", query="q", answer="It was Ann Lee.")
CONFIG = PairConfig(min_scored=2)


def make_responses(*texts: str) -> list[Response]:
    return [Response(id=f"7-{n}", example_id="7", query="q", text=text) for n, text in enumerate(texts)]


def pair_ids(outcome: PreferencePair | NoPair) -> tuple[str, str]:
    assert isinstance(outcome, PreferencePair), outcome
    return outcome.chosen.id, outcome.rejected.id


def no_pair_reason(outcome: PreferencePair | NoPair) -> str:
    assert isinstance(outcome, NoPair), outcome
    return outcome.reason


def test_random_pairs_depend_on_seed() -> None:
    responses = make_responses(*"abcdefghij")
    pairs = [pair_ids(random_pair(PairConfig(seed=seed), EXAMPLE, responses)) for seed in range(20)]
    assert pairs == [pair_ids(random_pair(PairConfig(seed=seed), EXAMPLE, responses[::-1])) for seed in range(20)]
    assert len(set(pairs)) > 10


def test_random_pairs_have_no_position_bias() -> None:
    responses = make_responses("a", "b")
    first = sum(
        pair_ids(random_pair(CONFIG, EXAMPLE.model_copy(update={"id": str(n)}), responses))[0] == "7-0"
        for n in range(400)
    )
    assert 160 < first < 240  # four standard deviations around the half


def test_random_pair_has_two_different_texts() -> None:
    for seed in range(10):
        outcome = random_pair(PairConfig(min_scored=2, seed=seed), EXAMPLE, make_responses("a", "a", "b", "a"))
        assert "7-2" in pair_ids(outcome)
    assert no_pair_reason(random_pair(CONFIG, EXAMPLE, make_responses("a", "a", "a"))) == "all responses are the same"
    assert no_pair_reason(random_pair(PairConfig(), EXAMPLE, make_responses("a", "b"))) == "too few scored responses"
    assert no_pair_reason(random_pair(CONFIG, EXAMPLE, [])) == "no responses"


def truncate(*responses: Response) -> list[Response]:
    return [response.model_copy(update={"finish_reason": "length"}) for response in responses]


def test_random_pair_and_truncated_responses() -> None:
    complete, *others = make_responses(*"abcdef")
    for seed in range(20):
        config = PairConfig(seed=seed)
        chosen, rejected = pair_ids(random_pair(config, EXAMPLE, [complete, *truncate(*others)]))
        assert chosen == "7-0"
        allowed = config.model_copy(update={"choose_truncated": True})
        assert pair_ids(random_pair(allowed, EXAMPLE, truncate(complete, *others))) == pair_ids(
            random_pair(config, EXAMPLE, [complete, *others])
        )
        assert rejected != "7-0"
    assert no_pair_reason(random_pair(CONFIG, EXAMPLE, truncate(complete, *others))) == "all responses are truncated"


def test_contrast_chooses_reference_answer() -> None:
    outcome = contrast_pair(CONFIG, EXAMPLE, make_responses("It was Ann Lee. ", "It was Bo."))
    assert isinstance(outcome, PreferencePair)
    assert (outcome.chosen.text, outcome.rejected.id) == ("It was Ann Lee.", "7-1")
    losers = {pair_ids(contrast_pair(PairConfig(seed=s), EXAMPLE, make_responses("a", "b", "c")))[1] for s in range(30)}
    assert losers == {"7-0", "7-1", "7-2"}


def test_contrast_reasons_without_pair() -> None:
    bare = EXAMPLE.model_copy(update={"answer": " "})
    assert no_pair_reason(contrast_pair(CONFIG, bare, make_responses("a", "b"))) == "no answer of its own"
    assert (
        no_pair_reason(contrast_pair(CONFIG, EXAMPLE, make_responses("It was Ann Lee.")))
        == "its own answer was sampled"
    )
    assert no_pair_reason(contrast_pair(CONFIG, EXAMPLE, [])) == "no responses"


def test_rows_and_metrics_of_pairs_without_rewards() -> None:
    outcome = contrast_pair(CONFIG, EXAMPLE, make_responses("It was Bo."))
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


def test_consensus_chooses_response_that_agrees_most_with_others() -> None:
    responses = make_responses("Ann Lee founded it", "It was Ann Lee", "Ann Lee", "no idea at all")
    outcome = consensus_pair(PairConfig(min_scored=4), EXAMPLE, responses)
    assert pair_ids(outcome) == ("7-0", "7-3")
    assert isinstance(outcome, PreferencePair)
    # F1 of 7-0: with 7-1 three of four words in common, with 7-2 two of (4 + 2) / 2, with 7-3 none.
    assert outcome.chosen_reward == pytest.approx((3 / 4 + 2 / 3 + 0) / 3)
    assert outcome.rejected_reward == 0


def test_consensus_without_pair() -> None:
    assert no_pair_reason(consensus_pair(CONFIG, EXAMPLE, make_responses("a b", "a b"))) == "all responses are the same"
    assert no_pair_reason(consensus_pair(CONFIG, EXAMPLE, make_responses("a", "b"))) == "best and worst tie"
    assert no_pair_reason(consensus_pair(CONFIG, EXAMPLE, make_responses("a", "", "!"))) == "best and worst tie"
