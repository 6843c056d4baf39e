"""Aggregate verdicts into metrics: means over cases and means of group means, with confidence intervals."""

from collections.abc import Mapping, Sequence

from longreward.benchmarks.types import Metric, Verdict
from longreward.evaluation.intervals import Bounds
from longreward.evaluation.statistics import Estimate, IntervalOptions, Observation, mean, stratified_mean


def verdict_metric(
    name: str,
    verdicts: Sequence[Verdict],
    options: IntervalOptions,
    *,
    scale: float = 1.0,
    bounds: Bounds | None = None,
) -> Metric:
    """Return the mean of the values, times `scale`; verdicts without a value are left out.

    `bounds` are those of the scaled values.
    """
    values = [(verdict.case_id, verdict.value * scale) for verdict in verdicts if verdict.value is not None]
    return Metric(
        name,
        mean(values, options, bounds=bounds),
        cases=len({verdict.case_id for verdict in verdicts}),
        unscored=sum(verdict.value is None for verdict in verdicts),
    )


def macro_mean(
    groups: Mapping[str, Sequence[Observation]],
    options: IntervalOptions,
    *,
    weights: Mapping[str, float] | None = None,
    bounds: Bounds | None = None,
) -> Estimate | None:
    """Return the weighted mean of the groups' means; None if a group is empty.

    Args:
        weights: By group; they sum to 1. Default: equal weights.

    >>> macro_mean({"a": [("1", 1.0), ("2", 0.0)], "b": [("3", 1.0)]}, IntervalOptions()).value
    0.75
    """
    equal = dict.fromkeys(groups, 1 / len(groups)) if groups else {}
    return stratified_mean(groups, weights or equal, options, bounds=bounds)
