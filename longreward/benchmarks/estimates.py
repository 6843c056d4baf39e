"""Means with bootstrap intervals, and means of means, as the benchmarks' tables take them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from longreward.benchmarks.shape import Figure, Intervals, Verdict
from longreward.evaluation.bootstrap import Estimate, Observation, mean

if TYPE_CHECKING:
    import numpy as np


def estimate(observations: Iterable[Observation], intervals: Intervals) -> Estimate | None:
    """The mean over (case, value), cases resampled; None where there are none."""
    return mean(observations, **vars(intervals))


def figure(name: str, verdicts: Sequence[Verdict], intervals: Intervals, *, scale: float = 1.0) -> Figure:
    """The mean of all verdicts under both readings, times `scale`; what a reading leaves out is in neither sum."""
    exact = [(each.case_id, each.exact * scale) for each in verdicts if each.exact is not None]
    strict = [(each.case_id, each.strict * scale) for each in verdicts if each.strict is not None]
    return Figure(
        name,
        estimate(exact, intervals),
        estimate(strict, intervals),
        cases=len({each.case_id for each in verdicts}),
        unscored=sum(each.strict is None for each in verdicts),
    )


def mean_of_means(
    groups: Mapping[str, Sequence[Observation]], intervals: Intervals, *, weights: Mapping[str, float] | None = None
) -> Estimate | None:
    """The mean of the groups' means, cases resampled within their group; None where a group is empty.

    `weights` by group, which sum up to 1, make it another mean: that of classes of several groups, for one.

    >>> mean_of_means({"a": [("1", 1.0), ("2", 0.0)], "b": [("3", 1.0)]}, Intervals()).value
    0.75
    """
    import numpy as np

    if not groups or not all(groups.values()):
        return None
    random = np.random.default_rng(intervals.seed)
    value, drawn, cases = 0.0, np.zeros(intervals.resamples), 0
    for name, observations in groups.items():
        weight = 1 / len(groups) if weights is None else weights[name]
        totals, counts = _by_case(observations)
        picks = random.integers(len(totals), size=(intervals.resamples, len(totals)))
        value += weight * float(totals.sum() / counts.sum())
        drawn += weight * totals[picks].sum(axis=1) / counts[picks].sum(axis=1)
        cases += len(totals)
    tail = (1 - intervals.confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Estimate(value, float(low), float(high), cases)


def _by_case(observations: Sequence[Observation]) -> "tuple[np.ndarray, np.ndarray]":
    """Sum and number of each case's values."""
    import numpy as np

    places = {name: place for place, name in enumerate(dict.fromkeys(name for name, _ in observations))}
    totals, counts = np.zeros(len(places)), np.zeros(len(places))
    for name, value in observations:
        totals[places[name]] += value
        counts[places[name]] += 1
    return totals, counts
