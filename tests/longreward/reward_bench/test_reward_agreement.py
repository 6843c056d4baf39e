"""Agreement of rewards with labels, with values worked out by hand."""

import dataclasses

import pytest

from longreward.errors import ConfigError
from longreward.evaluation.statistics import IntervalOptions
from longreward.judge import JudgeConfig, open_judge
from longreward.records import DIMENSIONS, Response, ScoredResponse, Verdict
from longreward.reward.config import ScoreConfig
from longreward.reward_bench.agreement import compute_agreements, correctly_ordered, spearman, top_share
from longreward.reward_bench.builtin_items import corpus_pairs, damaged_lists, damaged_pairs
from longreward.reward_bench.items import Item
from longreward.reward_bench.rewards import rewards_by_variant, score_items

INTERVALS = IntervalOptions(resamples=50)


def item(*labels, group="", document="d"):
    return Item("1", "c", "q", tuple("abcdef"[: len(labels)]), tuple(map(float, labels)), group, document)


@pytest.mark.parametrize(
    ("labels", "rewards", "share"),
    [
        ((3, 1, 2), (8.0, 6.0, 7.0), 1.0),
        ((3, 1, 2), (6.0, 8.0, 7.0), 0.0),
        ((3, 1, 2), (8.0, 8.0, 7.0), 0.5),
        ((3, 3, 2), (8.0, 7.0, 6.0), 1.0),  # either of the best will do
        ((1, 0), (5.0, 5.0), 0.5),
        ((3, 3, 2), (5.0, 5.0, 5.0), 2 / 3),
    ],
)
def test_top_share(labels, rewards, share):
    assert top_share(item(*labels), rewards) == share


def test_correctly_ordered():
    assert correctly_ordered((3, 1, 2), (8.0, 6.0, 6.0)) == [1.0, 1.0, 0.5]
    assert correctly_ordered((1, 1, 0), (2.0, 9.0, 5.0)) == [0.0, 1.0]  # the first two say nothing
    assert correctly_ordered((3, 1, 2), (8.0, None, 9.0)) == [0.0]


@pytest.mark.parametrize(
    ("labels", "rewards", "expected"),
    [
        ((3, 1, 2), (9.0, 1.0, 4.0), 1.0),
        ((3, 1, 2), (1.0, 9.0, 4.0), -1.0),
        # Ranks 2, 0, 1 and 2, ½, ½: around their mean 1, -1, 0 and 1, -½, -½: 1.5 / √(2 × 1.5).
        ((3, 1, 2), (8.0, 6.0, 6.0), 0.8660254),
        ((4, 3, 2, 1), (4.0, 3.0, 1.0, 2.0), 0.8),  # 1 - 6 × 2 / (4 × 15)
        ((3, 1, 2), (5.0, 5.0, 5.0), 0.0),
    ],
)
def test_spearman(labels, rewards, expected):
    assert spearman(labels, rewards) == pytest.approx(expected)


def test_agreement_over_all_items_and_by_group():
    items = [item(1, 0, group="x", document="a"), item(1, 0, group="y", document="b"), item(3, 1, 2, group="y")]
    agreements = compute_agreements(items, {"r": [(9.0, 1.0), (1.0, 9.0), (8.0, None, 9.0)]}, INTERVALS)
    assert [(row.group, row.items, row.unscored) for row in agreements] == [("all", 3, 1), ("x", 1, 0), ("y", 2, 1)]
    whole, first, second = agreements
    assert whole.metrics() == {"accuracy": 0.5, "pairwise": pytest.approx(1 / 3), "unscored": 1.0}
    assert whole.accuracy.documents == 2
    assert first.metrics() == {"accuracy": 1.0, "pairwise": 1.0, "unscored": 0.0}
    assert second.metrics() == {"accuracy": 0.0, "pairwise": 0.0, "unscored": 1.0}


def test_pairs_and_lists_have_separate_accuracies():
    items = [item(1, 0), item(3, 1, 2), item(1, 3, 2), item(2, 1, 3)]
    (agreements,) = compute_agreements(
        items, {"r": [(1.0, 9.0), (9.0, 2.0, 3.0), (1.0, 5.0, 5.0), (7.0, 8.0, 9.0)]}, INTERVALS
    )
    assert agreements.accuracy.value == 0.0
    assert agreements.best_of_n.value == pytest.approx((1 + 0.5 + 1) / 3)
    assert agreements.metrics()["best_of_n"] == agreements.best_of_n.value


def test_single_group_not_reported_separately():
    assert [row.group for row in compute_agreements([item(1, 0, group="x")], {"r": [(2.0, 1.0)]}, INTERVALS)] == ["all"]


def scored(*scores):
    verdicts = {
        dimension: Verdict(score=score, reason=None if score is not None else "unreadable")
        for dimension, score in zip(DIMENSIONS, scores, strict=True)
    }
    return ScoredResponse(response=Response(id="1-0", example_id="1", query="q", text="t"), verdicts=verdicts)


def test_rewards_by_variant():
    rewards = rewards_by_variant([item(1, 0)], [[scored(10.0, 8.0, 6.0, 4.0), scored(10.0, 8.0, None, 3.0)]])
    assert rewards["longreward"] == [[7.0, None]]
    assert rewards["without helpfulness"] == [[6.0, None]]
    assert rewards["without faithfulness"] == [[pytest.approx(22 / 3), 7.0]]
    assert rewards["completeness only"] == [[4.0, 3.0]]
    assert rewards["faithfulness only"] == [[6.0, None]]
    ablations = [f"without {dimension}" for dimension in DIMENSIONS]
    assert list(rewards) == ["longreward", *ablations, *(f"{dimension} only" for dimension in DIMENSIONS)]


def test_items_without_context_use_two_dimensions():
    without = dataclasses.replace(item(1, 0), context="")
    responses = [scored(10.0, 8.0, None, None), scored(5.0, None, None, None)]
    assert rewards_by_variant([without], [responses]) == {
        "longreward": [[9.0, None]],
        "helpfulness only": [[10.0, 5.0]],
        "logicality only": [[8.0, None]],
    }
    # Among items with a context, all variants are reported; those of a document have no value here.
    rewards = rewards_by_variant([without, item(1, 0)], [responses, [scored(1.0, 2.0, 3.0, 4.0)] * 2])
    assert rewards["without helpfulness"] == [[8.0, None], [3.0, 3.0]]
    assert rewards["completeness only"] == [[None, None], [4.0, 4.0]]


async def test_items_without_context_send_no_request_about_a_document():
    without = dataclasses.replace(next(damaged_pairs(1)), context="")
    async with open_judge(JudgeConfig(), ledger=None) as judge:
        ((good, bad),) = await score_items(judge, ScoreConfig(), [without])
        assert judge.metrics()["calls"] == 4
    assert good.verdicts["helpfulness"].score is not None
    assert (bad.verdicts["faithfulness"].score, bad.verdicts["faithfulness"].calls) == (None, 0)
    assert bad.verdicts["completeness"].reason == "the item has no context"


async def test_offline_judge_prefers_right_answers_to_damaged_ones():
    items = [*damaged_pairs(2), *damaged_lists(2)]
    async with open_judge(JudgeConfig(), ledger=None) as judge:
        rewards = rewards_by_variant(items, await score_items(judge, ScoreConfig(), items))
    agreements = {(row.reward, row.group): row for row in compute_agreements(items, rewards, INTERVALS)}
    assert agreements["longreward", "value changed"].accuracy.value == 1.0
    assert agreements["longreward", "list"].spearman.value > 0.9
    # Only faithfulness tells that a wrong value misleads; by the others a missing one is worse.
    assert agreements["without faithfulness", "list"].pairwise.value < agreements["longreward", "list"].pairwise.value
    assert agreements["longreward", "empty"].accuracy is None  # no statement, no faithfulness: unscored
    assert agreements["longreward", "empty"].unscored == 2


async def test_partial_scores_refused():
    with pytest.raises(ConfigError, match=r"set score\.strategy to full"):
        async with open_judge(JudgeConfig(), ledger=None) as judge:
            await score_items(judge, ScoreConfig(strategy="adaptive"), list(damaged_lists(1)))


def test_damaged_items_are_deterministic_and_differ_from_judge_validation():
    assert list(damaged_pairs(2)) == list(damaged_pairs(2))
    assert len(list(damaged_pairs(2))) == 14
    assert {row.document for row in damaged_lists(2)} == {"judge-check-1000", "judge-check-1001"}


def test_corpus_pairs(tmp_path):
    from longreward.builtin.corpus import write_corpus

    written = write_corpus(tmp_path, documents=4)
    items = list(corpus_pairs(written.corpus, written.gold))
    assert 4 < len(items) < written.rows
    assert {row.group for row in items} <= {"value wrong", "fact missing", "sentence added"}
    assert all(row.responses[0] != row.responses[1] and row.labels == (1.0, 0.0) for row in items)
    assert items[0].document.startswith("builtin-1-")
