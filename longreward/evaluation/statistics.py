"""Means and differences with confidence intervals over documents: answers about one text belong together.

Intervals are those of `intervals` (a Bayesian bootstrap with one unseen document), p-values those of `significance`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from longreward.evaluation.intervals import UNBOUNDED, Bounds, difference_bounds, document_values, limit_draws, limits
from longreward.evaluation.significance import holm, paired_p_value, unpaired_p_value

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A mean, or a difference of means, with its interval."""

    value: float
    low: float
    high: float
    documents: int  # that it stands on

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class DifferenceEstimate(Estimate):
    """A difference of means with the p-value of its being zero, and that value corrected for the other differences.

    `level` is 1 minus the interval's confidence.
    """

    p: float
    p_corrected: float
    level: float

    @property
    def is_significant(self) -> bool:
        """Whether this one difference, chosen before looking at any, is more than chance by interval and by test."""
        return self.excludes_zero and self.p <= self.level

    @property
    def is_shown(self) -> bool:
        """Whether it is more than chance as one of all differences of its report.

        The test decides alone. It is sharper than the interval, which has to hold for skewed measures, too: of 20
        normal differences with a mean of half a standard deviation the test finds 57 %, the interval 29 %.
        """
        return self.p_corrected <= self.level

    def reversed(self) -> "DifferenceEstimate":
        """Return the first side minus the second."""
        return replace(self, value=-self.value, low=-self.high, high=-self.low)


Observation = tuple[str, float]  # document, value


def mean(
    observations: Iterable[Observation],
    *,
    resamples: int,
    confidence: float,
    seed: int,
    bounds: Bounds | None = None,
) -> Estimate | None:
    """Return the mean over all observations; None where there are none.

    `bounds` are those of the measure; without them, values that are all 0 or 1 are taken for a share.
    """
    listed = list(observations)
    return stratified_mean(
        {"": listed}, {"": 1.0}, resamples=resamples, confidence=confidence, seed=seed, bounds=bounds
    )


def stratified_mean(
    groups: Mapping[str, Sequence[Observation]],
    weights: Mapping[str, float],
    *,
    resamples: int,
    confidence: float,
    seed: int,
    bounds: Bounds | None = None,
) -> Estimate | None:
    """Return the weighted mean of the groups' means; None where a group is empty. Weights are positive, their sum 1."""
    import numpy as np

    if not groups or not all(groups.values()):
        return None
    known = bounds or _bounds_of(value for listed in groups.values() for _, value in listed)
    value, documents, draws = 0.0, 0, []
    for stratum, (name, listed) in enumerate(groups.items()):
        totals, counts = _tally(listed, _documents(listed))
        value += weights[name] * float(totals.sum() / counts.sum())
        documents += len(totals)
        lower, upper = limit_draws(
            document_values(totals, counts),
            bounds=known,
            observed_range=_range(listed),
            resamples=resamples,
            seed=seed,
            stratum=stratum,
        )
        draws.append((weights[name] * lower, weights[name] * upper))
    lower, upper = (np.sum(parts, axis=0) for parts in zip(*draws, strict=True))
    low, high = limits(lower, upper, confidence=confidence, bounds=known)
    return Estimate(value, min(float(low), value), max(float(high), value), documents)


def mean_difference(
    first: Iterable[Observation],
    second: Iterable[Observation],
    *,
    resamples: int,
    confidence: float,
    seed: int,
    bounds: Bounds | None = None,
) -> DifferenceEstimate | None:
    """Return the mean of `second` minus the mean of `first`; None where a side is empty.

    The two are paired by document, unless they have no document in common. `bounds` are as for `mean`.
    """
    sides = [list(first), list(second)]
    if not all(sides):
        return None
    known = bounds or _bounds_of(value for side in sides for _, value in side)
    within = difference_bounds(known)
    own = [_documents(side) for side in sides]
    draw = partial(limit_draws, resamples=resamples, seed=seed)
    if set(own[0]) & set(own[1]):
        documents = sorted({*own[0], *own[1]})
        tallies = [_tally(side, documents) for side in sides]
        values = document_values(*tallies[1]) - document_values(*tallies[0])
        lower, upper = draw(values, bounds=within, observed_range=_range(sides[0] + sides[1]), mirrored=True)
        p = paired_p_value(*tallies)
    else:
        documents = own[0] + own[1]
        tallies = [_tally(side, names) for side, names in zip(sides, own, strict=True)]
        draws = [
            draw(document_values(*tally), bounds=known, observed_range=_range(side), stratum=stratum)
            for stratum, (tally, side) in enumerate(zip(tallies, sides, strict=True))
        ]
        lower, upper = draws[1][0] - draws[0][1], draws[1][1] - draws[0][0]
        p = unpaired_p_value(*tallies)
    means = [float(totals.sum() / counts.sum()) for totals, counts in tallies]
    value = means[1] - means[0]
    low, high = limits(lower, upper, confidence=confidence, bounds=within)
    return DifferenceEstimate(
        value, min(float(low), value), max(float(high), value), len(documents), p, p, level=1 - confidence
    )


def holm_corrected(differences: Sequence[DifferenceEstimate]) -> list[DifferenceEstimate]:
    """Return all differences of one report, their p-values corrected for their number (Holm)."""
    values = holm([each.p for each in differences])
    return [replace(each, p_corrected=value) for each, value in zip(differences, values, strict=True)]


def format_p(p: float) -> str:
    """Return a p-value with three digits.

    >>> format_p(0.0312), format_p(0.00005)
    ('0.031', '<0.001')
    """
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _documents(observations: Iterable[Observation]) -> list[str]:
    return sorted({name for name, _ in observations})


def _tally(observations: Iterable[Observation], documents: Sequence[str]) -> "tuple[np.ndarray, np.ndarray]":
    """Return the sum and the number of each document's values."""
    import numpy as np

    index = {name: position for position, name in enumerate(documents)}
    totals, counts = np.zeros(len(documents)), np.zeros(len(documents))
    for name, value in observations:
        totals[index[name]] += value
        counts[index[name]] += 1
    return totals, counts


def _range(observations: Sequence[Observation]) -> float:
    values = [value for _, value in observations]
    return max(values) - min(values)


def _bounds_of(values: Iterable[float]) -> Bounds:
    return (0.0, 1.0) if set(values) <= {0.0, 1.0} else UNBOUNDED
