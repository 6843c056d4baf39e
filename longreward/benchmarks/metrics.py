"""Means with intervals over cases, and means of means, as the benchmarks' tables take them."""

from collections.abc import Iterable, Mapping, Sequence

from longreward.benchmarks.types import IntervalOptions, Metric, Verdict
from longreward.evaluation.intervals import Bounds
from longreward.evaluation.statistics import Estimate, Observation, mean, stratified_mean


def mean_estimate(
    observations: Iterable[Observation], intervals: IntervalOptions, *, bounds: Bounds | None = None
) -> Estimate | None:
    """Return the mean over (case, value) with an interval over the cases; None where there are none."""
    return mean(observations, **vars(intervals), bounds=bounds)


def verdict_metric(
    name: str,
    verdicts: Sequence[Verdict],
    intervals: IntervalOptions,
    *,
    scale: float = 1.0,
    bounds: Bounds | None = None,
) -> Metric:
    """The mean of all verdicts under both readings, times `scale`; what a reading leaves out is in neither sum.

    `bounds` are those of the scaled values.
    """
    exact = [(each.case_id, each.exact * scale) for each in verdicts if each.exact is not None]
    strict = [(each.case_id, each.strict * scale) for each in verdicts if each.strict is not None]
    return Metric(
        name,
        mean_estimate(exact, intervals, bounds=bounds),
        mean_estimate(strict, intervals, bounds=bounds),
        cases=len({each.case_id for each in verdicts}),
        unscored=sum(each.strict is None for each in verdicts),
    )


def macro_mean(
    groups: Mapping[str, Sequence[Observation]],
    intervals: IntervalOptions,
    *,
    weights: Mapping[str, float] | None = None,
    bounds: Bounds | None = None,
) -> Estimate | None:
    """The mean of the groups' means, with an interval over the cases of each group; None where a group is empty.

    `weights` by group, which sum up to 1, make it another mean: that of classes of several groups, for one.

    >>> mean_of_means({"a": [("1", 1.0), ("2", 0.0)], "b": [("3", 1.0)]}, Intervals()).value
    0.75
    """
    equal = dict.fromkeys(groups, 1 / len(groups)) if groups else {}
    return stratified_mean(groups, weights or equal, **vars(intervals), bounds=bounds)
