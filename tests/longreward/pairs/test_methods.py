"""Pairs of the control and of the data's own answers."""

from longreward.data.formats import pair_from_row, pair_to_row
from longreward.pairs.contrast import contrast_pair
from longreward.pairs.methods import PairConfig, pair_metrics
from longreward.pairs.outcomes import NoPair
from longreward.pairs.random_pair import random_pair
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


def test_chance_draws_the_same_two_for_a_seed_and_others_for_another() -> None:
    responses = sampled(*"abcdefghij")
    drawn = [ids(random_pair(PairConfig(seed=seed), EXAMPLE, responses)) for seed in range(20)]
    assert drawn == [ids(random_pair(PairConfig(seed=seed), EXAMPLE, responses[::-1])) for seed in range(20)]
    assert len(set(drawn)) > 10


def test_chance_prefers_no_place() -> None:
    responses = sampled("a", "b")
    first = sum(
        ids(random_pair(ANY, EXAMPLE.model_copy(update={"id": str(n)}), responses))[0] == "7-0" for n in range(400)
    )
    assert 160 < first < 240  # four standard deviations around the half


def test_chance_takes_two_different_texts_or_none() -> None:
    for seed in range(10):
        outcome = random_pair(PairConfig(min_scored=2, seed=seed), EXAMPLE, sampled("a", "a", "b", "a"))
        assert "7-2" in ids(outcome)
    assert reason(random_pair(ANY, EXAMPLE, sampled("a", "a", "a"))) == "all responses are the same"
    assert reason(random_pair(PairConfig(), EXAMPLE, sampled("a", "b"))) == "too few scored responses"
    assert reason(random_pair(ANY, EXAMPLE, [])) == "no responses"


def cut(*responses: Response) -> list[Response]:
    return [one.model_copy(update={"finish_reason": "length"}) for one in responses]


def test_chance_chooses_no_truncated_response_and_may_reject_one() -> None:
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


def test_the_own_answer_wins_against_a_sampled_one_that_differs() -> None:
    outcome = contrast_pair(ANY, EXAMPLE, sampled("It was Ann Lee. ", "It was Bo."))
    assert isinstance(outcome, PreferencePair)
    assert (outcome.chosen.text, outcome.rejected.id) == ("It was Ann Lee.", "7-1")
    losers = {ids(contrast_pair(PairConfig(seed=s), EXAMPLE, sampled("a", "b", "c")))[1] for s in range(30)}
    assert losers == {"7-0", "7-1", "7-2"}


def test_a_prompt_without_an_answer_of_its_own_is_dropped_with_the_reason() -> None:
    bare = EXAMPLE.model_copy(update={"answer": " "})
    assert reason(contrast_pair(ANY, bare, sampled("a", "b"))) == "no answer of its own"
    assert reason(contrast_pair(ANY, EXAMPLE, sampled("It was Ann Lee."))) == "its own answer was sampled"
    assert reason(contrast_pair(ANY, EXAMPLE, [])) == "no responses"


def test_pairs_say_their_method_and_have_no_rewards_in_files_and_figures() -> None:
    outcome = contrast_pair(ANY, EXAMPLE, sampled("It was Bo."))
    assert isinstance(outcome, PreferencePair)
    row = pair_to_row(outcome)
    assert (row["method"], row["win_reward"], row["win_idx"]) == ("contrast", None, "7-answer")
    assert pair_from_row(row) == outcome
    figures = pair_metrics([outcome])
    assert figures["pairs"] == 1.0
    assert "margin_mean" not in figures


def test_a_published_pair_is_of_longreward() -> None:
    row = {"idx": 7, "context": "c", "query": "q", "win_response": "a", "lose_response": "b"}
    assert (pair_from_row(row).method, pair_from_row(row).margin) == ("longreward", 10.0)
