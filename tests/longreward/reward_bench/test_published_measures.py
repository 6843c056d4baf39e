"""The measures of public benchmarks: by hand, and equal to their published code on generated rewards."""

import random
from itertools import permutations

import pytest

from longreward.reward_bench.items import Item
from longreward.reward_bench.published_measures import (
    compute_published_measures,
    correct_positions,
    rewardbench_2_measures,
    ties_score,
)


def make_item(labels, *, group="", task="", document="d", benchmark=""):
    responses = tuple("abcdefgh"[: len(labels)])
    return Item("1", "", "q", responses, tuple(map(float, labels)), group, document, benchmark, task)


def make_rewards(rng, items):
    """Return rewards of which half are small integers, so that there are ties and equal margins."""
    return [
        [
            float(rng.randint(0, 4)) if rng.random() < 0.5 else rng.gauss(2, 2) + 1.5 * (label == 1)
            for label in item.labels
        ]
        for item in items
    ]


def generate_rewardbench_2(rng):
    items = []
    for subset in ("Factuality", "Math"):
        items += [make_item((1, 0, 0, 0), group=subset, benchmark="rewardbench-2") for _ in range(40)]
    for prompt in range(30):
        options = {"group": "Ties", "document": f"Ties/{prompt}", "benchmark": "rewardbench-2"}
        items.append(make_item((1, 0, 0, 0), task="ref", **options))
        items.append(make_item([1] * rng.randint(2, 4) + [0] * 3, task="tied", **options))
    return items


def measure(benchmark, items, rewards):
    return compute_published_measures(items, {"r": rewards})[benchmark]["r"]


def test_judgebench_by_source_with_its_rule_for_ties():
    labels = [(1, 0), (0, 1), (1, 0), (0, 1)]
    items = [
        make_item(pair, group="mmlu-pro" if number < 3 else "livecodebench", benchmark="judgebench")
        for number, pair in enumerate(labels)
    ]
    # Right; wrong; a tie, which is a vote for the second response; the same, where the second is right.
    rewards = [(5.6, 1.0), (3.0, 2.0), (1.0, 1.0), (1.0, 1.0)]
    assert measure("judgebench", items, rewards) == {
        "mmlu-pro": pytest.approx(1 / 3),
        "livecodebench": 1.0,
        "overall": 0.5,
    }


def test_rewardbench_2_equals_published_code():
    rng = random.Random(7)
    items = generate_rewardbench_2(rng)
    # `reroll_and_score_dataset` and `process_single_model` of allenai/reward-bench 05a9005, on these rewards.
    expected = {"Factuality": 0.25, "Math": 0.425, "Ties": 0.13446837916453788, "mean": 0.26982279305484597}
    assert measure("rewardbench-2", items, make_rewards(rng, items)) == pytest.approx(expected, abs=1e-9)


def test_best_of_four_counts_share_of_ties_at_top():
    items = [make_item((1, 0, 0, 0), group="Math")] * 3
    rewards = [[3.0, 1.0, 1.0, 1.0], [2.0, 2.0, 1.0, 2.0], [1.0, 2.0, 0.0, 0.0]]
    assert rewardbench_2_measures(list(zip(items, rewards, strict=True)))["Math"] == pytest.approx((1 + 1 / 3) / 3)


@pytest.mark.parametrize(
    ("tied", "ref", "score"),
    [
        # All correct responses above the others, and closer to each other than to them, in both forms; tanh(3 / 1 - 1).
        ([6.0, 5.0, 2.0], [4.0, 0.0], 0.3 + 0.3 + 0.2 + 0.2 + 0.01 * 0.9640275800758169),
        # The margin of the reference form is smaller than the spread: tanh(0.5 / 1 - 1).
        ([6.0, 5.0, 2.0], [4.0, 3.5], 0.3 + 0.3 + 0.2 + 0.01 * -0.46211715726000973),
        # One correct response is below another one: tanh(-1 / 4 - 1).
        ([6.0, 2.0, 3.0], [4.0, 0.0], 0.3 + 0.01 * -0.8482836399575129),
        # No spread at all: the relative margin is infinite, which tanh maps to 1; 0 / 0 counts as 0.
        ([6.0, 6.0, 2.0], [4.0, 0.0], 1.01),
        ([6.0, 6.0, 6.0], [4.0, 4.0], 0.0),
    ],
)
def test_ties_score_by_hand(tied, ref, score):
    items = [make_item((1, 1, 0), task="tied"), make_item((1, 0), task="ref")]
    assert ties_score([(items[0], tied), (items[1], ref)]) == pytest.approx(score, abs=1e-12)


def test_ties_need_prompts_in_both_forms():
    items = [make_item((1, 1, 0), task="tied", document="1"), make_item((1, 0), task="ref", document="2")]
    assert ties_score([(items[0], [3.0, 2.0, 1.0]), (items[1], [2.0, 1.0])]) is None
    judged = [(make_item((1, 1, 0), group="Ties", task="tied"), [3.0, 2.0, 1.0])]
    assert rewardbench_2_measures(judged) == {}


def test_rm_bench_equals_published_code():
    rng = random.Random(7)
    sizes = {"chat": 20, "math": 30, "code": 25, "safety": 21}
    items = [
        make_item((1, 1, 1, 0, 0, 0), group=domain, benchmark="rm-bench")
        for domain, size in sizes.items()
        for _ in range(size)
    ]
    # `compute_accuracy` of THU-KEG/RM-Bench, on these rewards.
    expected = {
        "hard": 0.5724603174603174,
        "normal": 0.5797619047619048,
        "easy": 0.6099206349206349,
        "chat": 0.5777777777777778,
        "math": 0.5740740740740741,
        "code": 0.5733333333333334,
        "safety": 0.6243386243386243,
        "mean": 0.5873809523809523,
    }
    assert measure("rm-bench", items, make_rewards(rng, items)) == pytest.approx(expected, abs=1e-9)


def test_rm_bench_difficulties_by_hand():
    items = [make_item((1, 1, 1, 0, 0, 0), benchmark="rm-bench")]
    # The reward is the style: 1, 2, 3 for chosen and rejected, so that only more elaborate ones win.
    assert measure("rm-bench", items, [[1, 2, 3, 1, 2, 3]]) == {
        "hard": 0.0,
        "normal": 0.0,
        "easy": 1.0,
        "mean": pytest.approx(1 / 3),
    }


def test_correct_positions():
    assert correct_positions([9.0, 5.0]) == 1.0
    assert correct_positions([5.0, 9.0]) == 0.0
    assert correct_positions([5.0, 5.0]) == 0.5
    assert correct_positions([9.0, 5.0, 7.0, 1.0]) == 0.5


@pytest.mark.parametrize("rewards", [(4, 3, 2, 1), (1, 4, 4, 2), (2, 2, 2, 1), (0, 0, 0, 0), (1, 3, 2)])
def test_correct_positions_are_mean_over_orders_of_published_code(rewards):
    # It shuffles the candidates, sorts them by score and compares the rank of each with its index before the shuffle.
    shares = []
    for order in permutations(range(len(rewards))):
        ranking = sorted(order, key=lambda index: -rewards[index])
        shares.append(sum(ranking.index(index) == index for index in order) / len(rewards))
    assert correct_positions(list(map(float, rewards))) == pytest.approx(sum(shares) / len(shares), abs=1e-9)


def test_long_rewardbench_separates_pairs_and_lists():
    options = {"benchmark": "long-rewardbench"}
    items = [
        make_item((1, 0), task="PairWise", **options),
        make_item((1, 0), task="BestOfN", **options),
        make_item((3, 2, 1), task="BestOfN", **options),
    ]
    assert measure("long-rewardbench", items, [(2.0, 1.0), (1.0, 2.0), (3.0, 1.0, 2.0)]) == {
        "PairWise": 1.0,
        "BestOfN": pytest.approx(1 / 6),
        "BestOfN of 2": 0.0,
        "BestOfN of 3": pytest.approx(1 / 3),
        "all": pytest.approx(4 / 9),
    }


def test_unscored_items_and_items_of_no_benchmark_are_left_out():
    items = [make_item((1, 0)), make_item((1, 0), benchmark="judgebench"), make_item((1, 0), benchmark="judgebench")]
    rewards = {"r": [(1.0, 0.0), (1.0, 0.0), (None, 0.0)], "s": [(1.0, 0.0), (None, None), (None, 0.0)]}
    assert compute_published_measures(items, rewards) == {"judgebench": {"r": {"overall": 1.0}}}
