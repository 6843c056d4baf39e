"""Means and differences with confidence intervals and p-values, clustered by document.

Answers about the same document are not independent, so documents are the sampling unit. Intervals are computed in
`intervals`, p-values in `significance`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING

from longreward.evaluation.intervals import UNBOUNDED, Bounds, difference_bounds, document_values, limit_draws, limits
from longreward.evaluation.significance import holm, paired_p_value, unpaired_p_value

if TYPE_CHECKING:
    import numpy as np

Observation = tuple[str, float]  # document, value


@dataclass(frozen=True)
class Estimate:
    """A mean, or a difference of means, with its confidence interval."""

    value: float
    low: float
    high: float
    documents: int  # sample size

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class DifferenceEstimate(Estimate):
    """A difference of means with its p-value, and the p-value corrected for the other differences of the report.

    `level` is the significance level: 1 minus the confidence of the interval.
    """

    p: float
    p_corrected: float
    level: float
    detectable: float | None = None
    """The true difference that a test of this one comparison would show with a power of 80 %, given the number of
    documents and the variance among them; None with fewer than two documents."""

    @property
    def is_significant(self) -> bool:
        """Whether this single difference, selected before looking at the data, is significant by interval and test."""
        return self.excludes_zero and self.p <= self.level

    @property
    def is_shown(self) -> bool:
        """Whether the difference is significant as one of all differences of its report.

        Only the test counts. The interval also covers skewed measures and has less power: for 20 normal differences
        with a mean of half a standard deviation, the test has a power of 57 %, the interval of 29 %.
        """
        return self.p_corrected <= self.level

    def reversed(self) -> "DifferenceEstimate":
        """Return the difference in the other direction."""
        return replace(self, value=-self.value, low=-self.high, high=-self.low)


@dataclass(frozen=True)
class IntervalOptions:
    """How confidence intervals are computed."""

    resamples: int = 2000
    confidence: float = 0.95
    seed: int = 0


def mean(
    observations: Iterable[Observation], options: IntervalOptions, *, bounds: Bounds | None = None
) -> Estimate | None:
    """Return the mean over all observations; None without observations.

    Args:
        bounds: Range of the measure. By default, values that are all 0 or 1 are a share, others are unbounded.
    """
    return stratified_mean({"": list(observations)}, {"": 1.0}, options, bounds=bounds)


def stratified_mean(
    groups: Mapping[str, Sequence[Observation]],
    weights: Mapping[str, float],
    options: IntervalOptions,
    *,
    bounds: Bounds | None = None,
) -> Estimate | None:
    """Return the weighted mean of the groups' means; None if a group is empty. The weights sum to 1."""
    import numpy as np

    if not groups or not all(groups.values()):
        return None
    bounds = bounds or _infer_bounds(value for observations in groups.values() for _, value in observations)
    value, documents, draws = 0.0, 0, []
    for stratum, (name, observations) in enumerate(groups.items()):
        totals, counts = _sum_by_document(observations, _documents(observations))
        value += weights[name] * float(totals.sum() / counts.sum())
        documents += len(totals)
        lower, upper = limit_draws(
            document_values(totals, counts),
            bounds=bounds,
            observed_range=_range(observations),
            resamples=options.resamples,
            seed=options.seed,
            stratum=stratum,
        )
        draws.append((weights[name] * lower, weights[name] * upper))
    lower, upper = (np.sum(parts, axis=0) for parts in zip(*draws, strict=True))
    low, high = limits(lower, upper, confidence=options.confidence, bounds=bounds)
    # Random draws can leave the mean of nearly equal values slightly outside of its interval.
    return Estimate(value, min(float(low), value), max(float(high), value), documents)


def mean_difference(
    first: Iterable[Observation],
    second: Iterable[Observation],
    options: IntervalOptions,
    *,
    bounds: Bounds | None = None,
) -> DifferenceEstimate | None:
    """Return the mean of `second` minus the mean of `first`; None if a side is empty.

    The sides are paired by document, unless they have no document in common. `bounds` are those of the measure, as for
    `mean`.
    """
    sides = [list(first), list(second)]
    if not all(sides):
        return None
    bounds = bounds or _infer_bounds(value for side in sides for _, value in side)
    range_of_difference = difference_bounds(bounds)
    own_documents = [_documents(side) for side in sides]
    if set(own_documents[0]) & set(own_documents[1]):
        documents = sorted({*own_documents[0], *own_documents[1]})
        sums = [_sum_by_document(side, documents) for side in sides]
        lower, upper = limit_draws(
            document_values(*sums[1]) - document_values(*sums[0]),
            bounds=range_of_difference,
            observed_range=_range(sides[0] + sides[1]),
            mirrored=True,
            resamples=options.resamples,
            seed=options.seed,
        )
        p = paired_p_value(*sums)
    else:
        # Independent samples: each side has its own stratum of random weights, and the widths of both add up.
        documents = own_documents[0] + own_documents[1]
        sums = [_sum_by_document(side, names) for side, names in zip(sides, own_documents, strict=True)]
        draws = [
            limit_draws(
                document_values(*side_sums),
                bounds=bounds,
                observed_range=_range(side),
                resamples=options.resamples,
                seed=options.seed,
                stratum=stratum,
            )
            for stratum, (side_sums, side) in enumerate(zip(sums, sides, strict=True))
        ]
        lower, upper = draws[1][0] - draws[0][1], draws[1][1] - draws[0][0]
        p = unpaired_p_value(*sums)
    means = [float(totals.sum() / counts.sum()) for totals, counts in sums]
    value = means[1] - means[0]
    deviations = [(totals - m * counts) / counts.mean() for m, (totals, counts) in zip(means, sums, strict=True)]
    if len(sums[0][0]) == len(sums[1][0]) == len(documents):
        deviations = [deviations[1] - deviations[0]]
    low, high = limits(lower, upper, confidence=options.confidence, bounds=range_of_difference)
    return DifferenceEstimate(
        value,
        min(float(low), value),
        max(float(high), value),
        len(documents),
        p,
        p,
        level=1 - options.confidence,
        detectable=detectable_difference(deviations, options.confidence),
    )


def detectable_difference(deviations: "Sequence[np.ndarray]", confidence: float, power: float = 0.8) -> float | None:
    """Return the smallest true difference that a two-sided test shows with this power, by the normal approximation.

    Args:
        deviations: Of each independent sample [documents], the documents' deviations from the mean; one sample of
            differences if the documents are paired.

    >>> import numpy as np
    >>> paired = np.array([0.5, -0.5] * 50)  # standard error 0.05, times 1.96 + 0.84
    >>> round(detectable_difference([paired], 0.95), 3)
    0.141
    """
    if min(map(len, deviations)) < 2:
        return None
    variance = sum(float(sample.var(ddof=1)) / len(sample) for sample in deviations)
    quantile = NormalDist().inv_cdf
    return float((quantile((1 + confidence) / 2) + quantile(power)) * variance**0.5)


def holm_corrected(differences: Sequence[DifferenceEstimate]) -> list[DifferenceEstimate]:
    """Return all differences of a report with p-values corrected for their number (Holm)."""
    p_values = holm([difference.p for difference in differences])
    return [replace(difference, p_corrected=p) for difference, p in zip(differences, p_values, strict=True)]


def format_p(p: float) -> str:
    """Return a p-value with three digits.

    >>> format_p(0.0312), format_p(0.00005)
    ('0.031', '<0.001')
    """
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _documents(observations: Iterable[Observation]) -> list[str]:
    return sorted({document for document, _ in observations})


def _sum_by_document(observations: Iterable[Observation], documents: Sequence[str]) -> "tuple[np.ndarray, np.ndarray]":
    """Return the sum and the number of each document's values."""
    import numpy as np

    index = {document: position for position, document in enumerate(documents)}
    totals, counts = np.zeros(len(documents)), np.zeros(len(documents))
    for document, value in observations:
        totals[index[document]] += value
        counts[index[document]] += 1
    return totals, counts


def _range(observations: Sequence[Observation]) -> float:
    values = [value for _, value in observations]
    return max(values) - min(values)


def _infer_bounds(values: Iterable[float]) -> Bounds:
    return (0.0, 1.0) if set(values) <= {0.0, 1.0} else UNBOUNDED
