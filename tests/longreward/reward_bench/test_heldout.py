import pytest

from longreward.evaluation.statistics import IntervalOptions
from longreward.records import Example, Response
from longreward.reward.reward_model import RankedResponses, ResponseReward
from longreward.reward_bench.heldout import measure_heldout, render_heldout
from longreward.training.score_pairs import ScoredPrompt

INTERVALS = IntervalOptions(resamples=200)
TEXTS = ("a", "bb", "ccc")


def make_prompt(name: str, *scores: float | tuple[float, float]) -> ScoredPrompt:
    example = Example(id=name, document_id=name, context="text", query="who ?")
    responses = tuple(
        Response(id=f"{name}-{n}", example_id=name, query="who ?", text=TEXTS[n]) for n in range(len(scores))
    )
    bounds = tuple(score if isinstance(score, tuple) else (score, score) for score in scores)
    return ScoredPrompt(example, responses, bounds)


def rewards_of(name: str, *rewards: float | None) -> RankedResponses:
    return RankedResponses(name, tuple(ResponseReward(f"{name}-{n}", reward) for n, reward in enumerate(rewards)))


PROMPTS = [make_prompt("x", 1.0, 2.0, 3.0), make_prompt("y", 9.0, 7.0, 8.0), make_prompt("z", 4.0, 4.0, 4.0)]
RANKED = [rewards_of("x", -1.0, 0.0, 1.0), rewards_of("y", 5.0, 3.0, 2.0), rewards_of("z", 0.0, 1.0, 2.0)]


def test_agreement_with_scores_by_hand() -> None:
    model, length = measure_heldout(PROMPTS, RANKED, gold=None, intervals=INTERVALS)
    assert (model.reward, model.labels, length.reward) == ("reward model", "judge", "length only")
    assert model.pairs is not None
    assert model.within is not None
    assert model.overall is not None
    assert model.pairs.value == pytest.approx(5 / 6)  # wrong: 7.0 with 3.0 against 8.0 with 2.0
    assert model.within.value == pytest.approx((1.0 + 0.5) / 2)  # ranks 3 1 2 against 3 2 1: 1 - 6 * 2 / 24
    assert model.overall.value == pytest.approx(1 - 6 * 2 / 210)  # the prompt whose labels are equal is left out
    assert model.pairs.documents == model.overall.documents == 2
    assert length.pairs is not None
    assert length.within is not None
    assert length.pairs.value == pytest.approx(4 / 6)
    assert length.within.value == pytest.approx((1.0 - 0.5) / 2)


def test_gold_facts_are_further_labels_with_judge_as_reward() -> None:
    def gold(example_id: str, text: str) -> dict[str, float] | None:
        return None if example_id == "y" else {"recall": len(text) / 3, "unsupported": 0.5, "exact": 0.0}

    agreements = measure_heldout(PROMPTS, RANKED, gold=gold, intervals=INTERVALS)  # type: ignore[arg-type]
    by_name = {(one.labels, one.reward): one for one in agreements}
    assert list(by_name)[2:] == [("gold facts", name) for name in ("reward model", "judge", "length only")]
    judge = by_name["gold facts", "judge"]
    assert judge.pairs is not None
    assert judge.pairs.value == pytest.approx((3 + 1.5) / 6)  # x in order, z tied
    assert judge.metrics()["gold_facts/judge/pairs"] == judge.pairs.value
    assert "## Agreement with the gold facts" in render_heldout(agreements)


def test_unknown_scores_are_no_labels_and_missing_rewards_counted() -> None:
    prompts = [make_prompt("x", 1.0, (2.0, 4.0), 3.0), make_prompt("y", 9.0, 7.0)]
    ranked = [rewards_of("x", 2.0, 9.0, 1.0), rewards_of("y", None, 3.0)]
    model, length = measure_heldout(prompts, ranked, gold=None, intervals=INTERVALS)
    assert model.pairs is not None
    assert length.pairs is not None
    assert (model.pairs.value, model.unscored, length.unscored) == (0.0, 1, 0)
    assert model.within is None
    assert length.pairs.value == 0.5
    assert measure_heldout([PROMPTS[2]], [RANKED[2]], gold=None, intervals=INTERVALS) == []
    assert "| reward model | 0.000 [" in render_heldout([model, length])
