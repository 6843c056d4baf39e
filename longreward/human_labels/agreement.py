"""How well ratings agree with human labels: Cohen's kappa and pairwise accuracy, with intervals by document.

Each label counts once, so an item with two reviewers gives two observations. Nothing is voted on: with two reviewers
there is no majority, and the agreement between reviewers is reported next to the judge's.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

from longreward.evaluation.statistics import Estimate, IntervalOptions, mean
from longreward.human_labels.items import ASPECTS, KINDS, LEVELS, Aspect, Kind, Label, LabelSet, ReviewItem, level
from longreward.human_labels.sampling import MARGINS, sign

Weights = Literal["quadratic"] | None
Ratings = Mapping[str, float | None]
"""A rater's values by item; None or missing: the rater has none."""
ALL: Literal["all"] = "all"
JUDGE, LENGTH, REPEAT = "judge", "length only", "judge against itself"
ACCURACY_BOUNDS = (0.0, 1.0)
LOWEST_KAPPA = -1.0


@dataclass(frozen=True)
class RatedPair:
    """Two raters' values of one item."""

    document: str
    kind: Kind
    first: float
    second: float

    @property
    def levels(self) -> tuple[int, int]:
        """Both values as categories."""
        return level(self.kind, self.first), level(self.kind, self.second)


@dataclass(frozen=True)
class Agreement:
    """The agreement of a rater with the labels about one question. None: not defined, or no labels."""

    rater: str
    kind: Kind
    aspect: Aspect | Literal["all"]
    count: int
    """Labels that the rater has a value for."""
    missing: int
    """Labels about items without a value of the rater."""
    exact: Estimate | None
    """Share of equal categories."""
    kappa: Estimate | None
    weighted_kappa: Estimate | None
    """With quadratic weights: a difference of two levels counts four times as much as one of one."""
    accuracy: Estimate | None
    """Preferences: the share of the reviewers' preferences that the rater has too; its ties count half."""

    @property
    def question(self) -> str:
        """The question, as "score, completeness"."""
        return f"{self.kind}, {self.aspect}"


def compare_with_labels(labels: LabelSet, ratings: Mapping[str, Ratings], options: IntervalOptions) -> list[Agreement]:
    """Return the agreement of each rater (by name) with the labels: each kind, then each aspect of it."""
    agreements = []
    for kind, aspect, items in _questions(labels):
        own = [label for label in labels.labels if label.item in items]
        for rater, values in ratings.items():
            pairs = [
                RatedPair(items[label.item].document_id, kind, label.value, value)
                for label in own
                if (value := values.get(label.item)) is not None
            ]
            agreements.append(_agreement(rater, kind, aspect, pairs, len(own) - len(pairs), options))
    return agreements


def compare_repeats(labels: LabelSet, rounds: Sequence[Ratings], options: IntervalOptions) -> list[Agreement]:
    """Return the judge's agreement with itself over all pairs of rounds, for each kind and aspect."""
    agreements = []
    for kind, aspect, items in _questions(labels):
        pairs = [
            RatedPair(item.document_id, kind, first, second)
            for earlier, later in combinations(rounds, 2)
            for item in items.values()
            if (first := earlier.get(item.id)) is not None and (second := later.get(item.id)) is not None
        ]
        missing = len(items) * (len(rounds) * (len(rounds) - 1) // 2) - len(pairs)
        agreements.append(_agreement(REPEAT, kind, aspect, pairs, missing, options))
    return agreements


def compare_reviewers(labels: LabelSet, options: IntervalOptions) -> list[Agreement]:
    """Return the agreement of each two reviewers on the items that both have labelled, for each kind.

    The mean of the kappas of more than two reviewers is Light's kappa (1971). Unlike Fleiss' kappa it allows different
    numbers of labels per item.
    """
    by_reviewer: dict[str, dict[str, Label]] = {}
    for label in labels.labels:
        by_reviewer.setdefault(label.reviewer, {})[label.item] = label
    agreements = []
    for kind in KINDS:
        for first, second in combinations(sorted(by_reviewer), 2):
            common = [
                RatedPair(item.document_id, kind, by_reviewer[first][item.id].value, by_reviewer[second][item.id].value)
                for item in labels.items.values()
                if item.kind == kind and item.id in by_reviewer[first] and item.id in by_reviewer[second]
            ]
            if common:
                agreements.append(_agreement(f"{first}, {second}", kind, ALL, common, 0, options))
    return agreements


def light_kappa(agreements: Iterable[Agreement], value: Callable[[Agreement], Estimate | None]) -> float | None:
    """Return the mean of the kappas of all pairs of reviewers that have one."""
    kappas = [estimate.value for agreement in agreements if (estimate := value(agreement)) is not None]
    return sum(kappas) / len(kappas) if kappas else None


def judge_ratings(labels: LabelSet) -> Ratings:
    """Return the judge's verdicts that are stored with the items."""
    return {item.id: item.verdict for item in labels.items.values()}


def length_ratings(labels: LabelSet) -> Ratings:
    """Return the values of a rater that only sees lengths: the longer the text, the better.

    Of two responses it prefers the longer one. Scores and levels of support are the human ones of their kind, assigned
    by rank: the longest text gets the highest label. So its distribution is right, and only its order can be wrong.
    """
    ratings: dict[str, float | None] = {}
    labelled = labels.by_item()
    for kind in KINDS:
        items = [item for item in labels.items.values() if item.kind == kind and item.id in labelled]
        if kind == "preference":
            ratings |= {item.id: sign(item.length) for item in items}
        else:
            by_length = sorted(items, key=lambda item: (item.length, item.id))
            # One label an item: the lower of the middle ones, as support has no values in between.
            middles = sorted(
                sorted(label.value for label in labelled[item.id])[(len(labelled[item.id]) - 1) // 2]
                for item in by_length
            )
            ratings |= {item.id: value for item, value in zip(by_length, middles, strict=True)}
    return ratings


def kappa(pairs: Sequence[RatedPair], options: IntervalOptions, *, weights: Weights = None) -> Estimate | None:
    """Return Cohen's kappa with its interval; None if both raters have one and the same category throughout.

    Kappa is 1 - observed / expected disagreement. The interval takes the expected disagreement as given, like Cohen's
    own standard error (1960): then kappa is a mean over the pairs, with the intervals of all other means, by document.
    """
    if not pairs:
        return None
    import numpy as np
    from sklearn.metrics import cohen_kappa_score  # type: ignore[import-untyped]

    categories = LEVELS[pairs[0].kind]
    first, second = (np.array(values) for values in zip(*(pair.levels for pair in pairs), strict=True))
    distance = np.abs(np.subtract.outer(np.arange(categories), np.arange(categories))) / (categories - 1)
    disagreement = distance**2 if weights else (distance > 0).astype(float)
    shares = [np.bincount(values, minlength=categories) / len(pairs) for values in (first, second)]
    expected = float(shares[0] @ disagreement @ shares[1])
    if expected == 0:
        return None
    observations = [(pair.document, 1 - float(disagreement[pair.levels]) / expected) for pair in pairs]
    estimate = mean(observations, options, bounds=(1 - 1 / expected, 1.0))
    assert estimate is not None, "there are pairs"
    value = float(cohen_kappa_score(first, second, labels=range(categories), weights=weights))
    return replace(estimate, value=value, low=max(estimate.low, LOWEST_KAPPA))


def pairwise_accuracy(pairs: Sequence[RatedPair], options: IntervalOptions) -> Estimate | None:
    """Return the share of the first rater's preferences that the second one shares; ties of the second count half."""
    observations = [
        (pair.document, 0.5 if pair.second == 0 else float(pair.first == pair.second))
        for pair in pairs
        if pair.kind == "preference" and pair.first != 0
    ]
    return mean(observations, options, bounds=ACCURACY_BOUNDS)


def accuracy_by_stratum(
    labels: LabelSet, ratings: Ratings, options: IntervalOptions
) -> dict[str, tuple[int, Estimate | None]]:
    """Return the number of labels and the pairwise accuracy of each stratum of margins."""
    strata: dict[str, list[RatedPair]] = {}
    for label in labels.labels:
        item = labels.items[label.item]
        value = ratings.get(item.id)
        if item.kind == "preference" and item.stratum and value is not None:
            strata.setdefault(item.stratum, []).append(RatedPair(item.document_id, item.kind, label.value, value))
    ordered = (name for name, _ in MARGINS if name in strata)
    return {name: (len(strata[name]), pairwise_accuracy(strata[name], options)) for name in ordered}


def confusion(labels: LabelSet, ratings: Ratings, kind: Kind) -> list[list[int]]:
    """Return how often each label (row) meets each value of the rater (column), both from the lowest level."""
    counts = [[0] * LEVELS[kind] for _ in range(LEVELS[kind])]
    for label in labels.labels:
        value = ratings.get(label.item)
        if labels.items[label.item].kind == kind and value is not None:
            counts[level(kind, label.value)][level(kind, value)] += 1
    return counts


def disagreements(labels: LabelSet, ratings: Ratings) -> list[tuple[Label, float]]:
    """Return each label that is another category than the rater's value, with that value; the farthest first."""
    different = []
    for label in labels.labels:
        kind, value = labels.items[label.item].kind, ratings.get(label.item)
        if value is not None and (distance := abs(level(kind, label.value) - level(kind, value))):
            different.append((distance / (LEVELS[kind] - 1), label, value))
    different.sort(key=lambda entry: (-entry[0], entry[1].item, entry[1].reviewer))
    return [(label, value) for _, label, value in different]


def _questions(
    labels: LabelSet,
) -> Iterable[tuple[Kind, Aspect | Literal["all"], Mapping[str, ReviewItem]]]:
    """Yield the labelled items of each kind, and of each aspect if the kind has several."""
    labelled = labels.by_item()
    for kind in KINDS:
        items = {item.id: item for item in labels.items.values() if item.kind == kind and item.id in labelled}
        aspects = [aspect for aspect in ASPECTS if any(item.aspect == aspect for item in items.values())]
        if len(aspects) > 1:
            yield kind, ALL, items
        for aspect in aspects:
            yield kind, aspect, {item.id: item for item in items.values() if item.aspect == aspect}


def _agreement(
    rater: str,
    kind: Kind,
    aspect: Aspect | Literal["all"],
    pairs: Sequence[RatedPair],
    missing: int,
    options: IntervalOptions,
) -> Agreement:
    equal = [(pair.document, float(pair.levels[0] == pair.levels[1])) for pair in pairs]
    return Agreement(
        rater=rater,
        kind=kind,
        aspect=aspect,
        count=len(pairs),
        missing=missing,
        exact=mean(equal, options, bounds=ACCURACY_BOUNDS),
        kappa=kappa(pairs, options),
        weighted_kappa=kappa(pairs, options, weights="quadratic"),
        accuracy=pairwise_accuracy(pairs, options),
    )
