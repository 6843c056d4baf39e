"""How often a reward agrees with the labels.

    labels 3, 1, 2    rewards 8.0, 6.0, 6.0
    accuracy   1.0    of pairs: the highest reward is the best response's; a tie counts its share of best responses
    best_of_n  1.0    the same for lists of three or more
    pairwise   5/6    over all pairs with different labels: in order 1, tied 0.5
    spearman   0.87   rank correlation of lists of three or more; 0 where all rewards tie

An item with an unscored response is left out of accuracy and correlation, and its pairs with that response are left
out of pairwise accuracy. Such items are counted as unscored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from longreward.evaluation.statistics import Estimate, IntervalOptions, Observation, mean
from longreward.reward_bench.items import Item

Rewards = Sequence[float | None]
"""Of one item's responses, in their order; None: unscored."""
ALL_GROUPS = "all"
SHARE_BOUNDS, CORRELATION_BOUNDS = (0.0, 1.0), (-1.0, 1.0)
METRICS = ("accuracy", "best_of_n", "pairwise", "spearman")


@dataclass(frozen=True)
class Agreement:
    """One reward's metrics on one group of items; None where no item allows the metric."""

    reward: str
    group: str
    items: int
    unscored: int
    """Items with a response that has no reward."""
    accuracy: Estimate | None
    best_of_n: Estimate | None
    pairwise: Estimate | None
    spearman: Estimate | None

    @property
    def estimates(self) -> dict[str, Estimate | None]:
        """The metrics by name, in the order of METRICS."""
        return {name: getattr(self, name) for name in METRICS}

    def metrics(self) -> dict[str, float]:
        """Return the values of the metrics that are not None, and `unscored`."""
        values = {name: estimate.value for name, estimate in self.estimates.items() if estimate is not None}
        return values | {"unscored": float(self.unscored)}


def compute_agreements(
    items: Sequence[Item], rewards: Mapping[str, Sequence[Rewards]], intervals: IntervalOptions
) -> list[Agreement]:
    """Return each reward's agreement over all items, then by group if there are several."""
    groups = [ALL_GROUPS, *dict.fromkeys(item.group for item in items if item.group)]
    if len(groups) == 2:  # a single group would repeat the rows over all items
        groups = groups[:1]
    agreements = []
    for reward, rewards_by_item in rewards.items():
        for group in groups:
            judged = [
                (item, item_rewards)
                for item, item_rewards in zip(items, rewards_by_item, strict=True)
                if group in (ALL_GROUPS, item.group)
            ]
            agreements.append(_compute_agreement(reward, group, judged, intervals))
    return agreements


def _compute_agreement(
    reward: str, group: str, judged: Sequence[tuple[Item, Rewards]], intervals: IntervalOptions
) -> Agreement:
    accuracy: list[Observation] = []
    best_of_n: list[Observation] = []
    pairwise: list[Observation] = []
    correlations: list[Observation] = []
    unscored = 0
    for item, rewards in judged:
        pairwise += [(item.document, value) for value in correctly_ordered(item.labels, rewards)]
        values = [reward for reward in rewards if reward is not None]
        if len(values) < len(rewards):
            unscored += 1
        elif len(values) == 2:
            accuracy.append((item.document, top_share(item, values)))
        else:
            best_of_n.append((item.document, top_share(item, values)))
            correlations.append((item.document, spearman(item.labels, values)))
    return Agreement(
        reward,
        group,
        items=len(judged),
        unscored=unscored,
        accuracy=mean(accuracy, intervals, bounds=SHARE_BOUNDS),
        best_of_n=mean(best_of_n, intervals, bounds=SHARE_BOUNDS),
        pairwise=mean(pairwise, intervals, bounds=SHARE_BOUNDS),
        spearman=mean(correlations, intervals, bounds=CORRELATION_BOUNDS),
    )


def top_share(item: Item, rewards: Sequence[float]) -> float:
    """Return the share of best responses among those with the highest reward."""
    top = [index for index, reward in enumerate(rewards) if reward == max(rewards)]
    return sum(index in item.best for index in top) / len(top)


def correctly_ordered(labels: Sequence[float], rewards: Rewards) -> list[float]:
    """Return 1, 0.5 or 0 for each pair of responses with different labels and known rewards."""
    return [
        0.5 if a == b else float((a > b) == (label_a > label_b))
        for (label_a, a), (label_b, b) in combinations(zip(labels, rewards, strict=True), 2)
        if label_a != label_b and a is not None and b is not None
    ]


def spearman(labels: Sequence[float], rewards: Sequence[float]) -> float:
    """Return the rank correlation; 0 where all rewards are equal."""
    from scipy.stats import spearmanr  # type: ignore[import-untyped]

    # scipy returns NaN here; a reward that cannot distinguish the responses agrees no more than chance.
    if len(set(rewards)) == 1:
        return 0.0
    return float(spearmanr(labels, rewards).statistic)
