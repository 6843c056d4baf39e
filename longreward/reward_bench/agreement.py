"""How often a reward says what the labels say.

    labels 3, 1, 2    rewards 8.0, 6.0, 6.0
    accuracy   1.0    of two: the highest reward is the best response's; a tie at the top counts its share of best ones
    best_of_n  1.0    the same of three and more
    pairwise   5/6    of all pairs with different labels: in order 1, tied ½
    spearman   0.87   correlation of ranks, equal ones in the middle; lists of three and more; 0 where all rewards tie

An item with a response that has no reward takes no part in accuracy and correlation, and its pairs with it none in
pairwise accuracy: each such item is counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from longreward.benchmarks.metrics import mean_estimate
from longreward.benchmarks.types import IntervalOptions
from longreward.evaluation.statistics import Estimate, Observation
from longreward.reward_bench.items import Item

Rewards = Sequence[float | None]
"""Of one item's responses, in their order; None: unscored."""
ALL = "all"
SHARE, CORRELATION = (0.0, 1.0), (-1.0, 1.0)
FIGURES = ("accuracy", "best_of_n", "pairwise", "spearman")


@dataclass(frozen=True)
class Agreement:
    """One reward's figures on one group of items; an Estimate is None where nothing could be compared."""

    reward: str
    group: str
    items: int
    unscored: int  # items with a response that has no reward
    accuracy: Estimate | None
    best_of_n: Estimate | None
    pairwise: Estimate | None
    spearman: Estimate | None

    @property
    def figures(self) -> dict[str, Estimate | None]:
        """By name, as in FIGURES."""
        return {name: getattr(self, name) for name in FIGURES}

    def metrics(self) -> dict[str, float]:
        """The figures that are there, and `unscored`."""
        known = {name: figure.value for name, figure in self.figures.items() if figure is not None}
        return known | {"unscored": float(self.unscored)}


def compute_agreements(
    items: Sequence[Item], rewards: Mapping[str, Sequence[Rewards]], intervals: IntervalOptions
) -> list[Agreement]:
    """For each reward the figures over all items, then by group, in the order in which they come."""
    groups = [ALL, *dict.fromkeys(item.group for item in items if item.group)]
    return [
        _agreement(
            name, group, [pair for pair in zip(items, given, strict=True) if group in (ALL, pair[0].group)], intervals
        )
        for name, given in rewards.items()
        for group in (groups if len(groups) > 2 else groups[:1])
    ]


def _agreement(
    reward: str, group: str, judged: Sequence[tuple[Item, Rewards]], intervals: IntervalOptions
) -> Agreement:
    whole = [(item, known) for item, rewards in judged if len(known := _known(rewards)) == len(rewards)]
    lists = [(item, known) for item, known in whole if len(known) > 2]
    pairs = [(item.document, right) for item, rewards in judged for right in correctly_ordered(item.labels, rewards)]
    tops: dict[bool, list[Observation]] = {
        of_two: [(item.document, top_share(item, known)) for item, known in whole if (len(known) == 2) == of_two]
        for of_two in (True, False)
    }
    ranks: list[Observation] = [(item.document, spearman(item.labels, known)) for item, known in lists]
    return Agreement(
        reward,
        group,
        items=len(judged),
        unscored=len(judged) - len(whole),
        accuracy=mean_estimate(tops[True], intervals, bounds=SHARE),
        best_of_n=mean_estimate(tops[False], intervals, bounds=SHARE),
        pairwise=mean_estimate(pairs, intervals, bounds=SHARE),
        spearman=mean_estimate(ranks, intervals, bounds=CORRELATION),
    )


def _known(rewards: Rewards) -> list[float]:
    return [reward for reward in rewards if reward is not None]


def top_share(item: Item, rewards: Sequence[float]) -> float:
    """The share of best responses among those with the highest reward."""
    top = [place for place, reward in enumerate(rewards) if reward == max(rewards)]
    return sum(place in item.best for place in top) / len(top)


def correctly_ordered(labels: Sequence[float], rewards: Rewards) -> list[float]:
    """1, ½ or 0 for each pair of different labels whose rewards are there."""
    return [
        0.5 if a == b else float((a > b) == (one > other))
        for (one, a), (other, b) in combinations(zip(labels, rewards, strict=True), 2)
        if one != other and a is not None and b is not None
    ]


def spearman(labels: Sequence[float], rewards: Sequence[float]) -> float:
    """The correlation of the ranks; 0 where the rewards tell nothing apart."""
    ours, theirs = _ranks(rewards), _ranks(labels)
    middle = (len(ours) - 1) / 2  # the mean of any ranks
    ours, theirs = [rank - middle for rank in ours], [rank - middle for rank in theirs]
    lengths = sum(rank**2 for rank in ours) * sum(rank**2 for rank in theirs)
    return sum(a * b for a, b in zip(ours, theirs, strict=True)) / float(lengths**0.5) if lengths else 0.0


def _ranks(values: Sequence[float]) -> list[float]:
    """From 0; equal values share the mean of theirs."""
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) - 1) / 2 for value in values
    ]
