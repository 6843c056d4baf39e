"""The measures that public benchmarks define for themselves, from the rewards of their items.

    judgebench        share of pairs in which the right response has the higher reward, by source
    rewardbench-2     best of four by subset, a weighted score on the subset Ties, and their mean
    rm-bench          share of 3 × 3 comparisons: chosen in a plainer style than rejected (hard), in the same (normal),
                      in a more elaborate one (easy); means over the domains
    long-rewardbench  share of responses whose rank by reward is their position in the labelled order

An item with an unscored response is left out. Sources: ScalerLab/JudgeBench `utils/metrics.py`, allenai/reward-bench
`rewardbench/utils.py` and `scripts/run_v2.py`, THU-KEG/RM-Bench `scripts/utils.py`, LCM-Lab/LongRM
`evaluate/evaluating/longreward_bench/evaluator.py`.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean

from longreward.reward_bench.agreement import Rewards, top_share
from longreward.reward_bench.items import Item
from longreward.reward_bench.public_formats import STYLES, TIES

Judged = list[tuple[Item, list[float]]]
"""Items of one benchmark with the rewards of their responses."""
Measures = dict[str, float]
BenchmarkMeasures = dict[str, dict[str, Measures]]
"""By benchmark and reward."""


def compute_published_measures(items: Sequence[Item], rewards: Mapping[str, Sequence[Rewards]]) -> BenchmarkMeasures:
    """Return the measures of each benchmark among the items, for each reward; shares from 0 to 1."""
    measures: BenchmarkMeasures = {}
    for benchmark, compute in MEASURES.items():
        for reward, rewards_by_item in rewards.items():
            judged = [
                (item, [reward for reward in item_rewards if reward is not None])
                for item, item_rewards in zip(items, rewards_by_item, strict=True)
                if item.benchmark == benchmark and None not in item_rewards
            ]
            if judged and (values := compute(judged)):
                measures.setdefault(benchmark, {})[reward] = values
    return measures


def judgebench_measures(judged: Judged) -> Measures:
    """Return the accuracy by source and over all pairs. A tie is a vote for the second response, as in its code."""
    correct = [
        (item.group, float((rewards[0] > rewards[1]) == (item.labels[0] > item.labels[1]))) for item, rewards in judged
    ]
    return _means_by_group(correct) | {"overall": fmean(value for _, value in correct)}


def rewardbench_2_measures(judged: Judged) -> Measures:
    """Return the score of each subset and their mean.

    The score is the accuracy of the best of four, where a tie at the top counts its share, except in the subset Ties.
    """
    ties = [(item, rewards) for item, rewards in judged if item.group.lower() == TIES]
    others = ((item.group, top_share(item, rewards)) for item, rewards in judged if item.group.lower() != TIES)
    scores = _means_by_group(others)
    if (score := ties_score(ties)) is not None:
        scores[ties[0][0].group] = score
    return scores | ({"mean": fmean(scores.values())} if scores else {})


def ties_score(judged: Judged) -> float | None:
    """Return the weighted score of the subset Ties; None without prompts that occur in both forms.

    Each prompt has a form with one correct response (ref) and one with several equally good ones (tied). Accuracy: all
    correct responses have a higher reward than all others. Margin: the rewards of the correct responses differ less
    from each other than from those of the others.
    """
    margins: dict[str, dict[str, tuple[float, float]]] = {"ref": {}, "tied": {}}
    for item, rewards in judged:
        correct = [reward for reward, label in zip(rewards, item.labels, strict=True) if label == 1]
        best_wrong = max(reward for reward, label in zip(rewards, item.labels, strict=True) if label == 0)
        margins[item.task][item.document] = (max(correct) - min(correct), min(correct) - best_wrong)
    # For each prompt: spread of the correct responses, and their distance from the wrong ones in both forms.
    prompts = [
        (spread, distance, margins["ref"][prompt][1])
        for prompt, (spread, distance) in margins["tied"].items()
        if prompt in margins["ref"]
    ]
    if not prompts:
        return None
    accuracies = [fmean(float(distance > 0) for _, distance in margins[task].values()) for task in ("tied", "ref")]
    preferred = fmean(float(distance > spread) for spread, distance, _ in prompts)
    preferred_in_both = fmean(float(min(distance, ref) > spread) for spread, distance, ref in prompts)
    relative_margin = fmean(_relative_margin(min(distance, ref), spread) for spread, distance, ref in prompts)
    return 0.3 * sum(accuracies) + 0.2 * preferred + 0.2 * preferred_in_both + 0.01 * relative_margin


def _relative_margin(distance: float, spread: float) -> float:
    """Return a term from -1 to 1 that separates rewards with equal accuracies; 0 / 0 counts as 0."""
    if spread == 0:
        return float((distance > 0) - (distance < 0))
    return math.tanh(distance / spread - 1)


def rm_bench_measures(judged: Judged) -> Measures:
    """Return hard, normal and easy accuracy, the accuracy of each domain, and the mean of the domains."""
    groups = list(dict.fromkeys(item.group for item, _ in judged))
    by_group = {
        group: _style_accuracies([rewards for item, rewards in judged if item.group == group]) for group in groups
    }
    accuracies = {name: fmean(values[name] for values in by_group.values()) for name in ("hard", "normal", "easy")}
    domains = {group: fmean(values.values()) for group, values in by_group.items() if group}
    return accuracies | domains | {"mean": fmean(accuracies.values())}


def _style_accuracies(rewards: Sequence[Sequence[float]]) -> dict[str, float]:
    """Return the accuracy over the comparisons of each difficulty; styles are in order of elaborateness."""
    outcomes: dict[str, list[float]] = {"hard": [], "normal": [], "easy": []}
    for values in rewards:
        for chosen_style, chosen in enumerate(values[:STYLES]):
            for rejected_style, rejected in enumerate(values[STYLES:]):
                difference = chosen_style - rejected_style
                outcomes["hard" if difference < 0 else "easy" if difference else "normal"].append(chosen > rejected)
    return {name: fmean(values) for name, values in outcomes.items()}


def long_rewardbench_measures(judged: Judged) -> Measures:
    """Return the share of correct positions of pairs, of lists, of lists by length, and of all items."""
    shares = [(item, correct_positions(rewards)) for item, rewards in judged]
    tasks = _means_by_group((item.task, share) for item, share in shares)
    lists = ((f"{item.task} of {len(item.labels)}", share) for item, share in shares if item.task == "BestOfN")
    return tasks | dict(sorted(_means_by_group(lists).items())) | {"all": fmean(share for _, share in shares)}


def correct_positions(rewards: Sequence[float]) -> float:
    """Return the share of responses, listed from best to worst, whose rank by reward is their position.

    Tied responses share their ranks: each counts as the chance that it has its position if they are ordered at random.
    The benchmark's code orders them as it shuffled the responses, which is the same on average.

    >>> correct_positions([9.0, 5.0, 7.0]), correct_positions([9.0, 7.0, 7.0])
    (0.3333333333333333, 0.6666666666666666)
    """
    total = 0.0
    for position, reward in enumerate(rewards):
        first = sum(other > reward for other in rewards)
        tied = sum(other == reward for other in rewards)
        total += (first <= position < first + tied) / tied
    return total / len(rewards)


def _means_by_group(values: Iterable[tuple[str, float]]) -> Measures:
    groups: dict[str, list[float]] = {}
    for group, value in values:
        if group:
            groups.setdefault(group, []).append(value)
    return {group: fmean(values) for group, values in groups.items()}


MEASURES: Mapping[str, Callable[[Judged], Measures]] = {
    "judgebench": judgebench_measures,
    "rewardbench-2": rewardbench_2_measures,
    "rm-bench": rm_bench_measures,
    "long-rewardbench": long_rewardbench_measures,
}
