"""Krippendorff's alpha: how well several raters agree, corrected for chance, with an interval over documents.

    alpha = 1 - observed / expected disagreement    1: perfect agreement, 0: that of chance, below 0: systematic dispute

The disagreement of two values is the squared difference of scores ("interval"), or 1 for different categories
("nominal"). Values may be missing; a unit with fewer than two values is not counted. Source: K. Krippendorff,
"Computing Krippendorff's Alpha-Reliability" (2011). The package `krippendorff` has the same values but no intervals.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from longreward.evaluation.intervals import document_values, limit_draws, limits
from longreward.evaluation.statistics import Estimate, IntervalOptions

Level = Literal["interval", "nominal"]
Values = Mapping[float, int]
"""How often each value occurs."""


class Reliability:
    """Collects the values that raters give to units; the memory grows with the documents, not with the units."""

    def __init__(self, level: Level) -> None:
        self._level = level
        self._values: Counter[float] = Counter()
        self._documents: dict[str, tuple[float, int]] = {}  # the sums of disagreements and of values

    def add(self, document: str, values: Sequence[float]) -> None:
        """Add the values that the raters give to one unit (a response, a statement)."""
        if len(values) < 2:
            return
        counts = Counter(values)
        self._values += counts
        disagreement, total = self._documents.get(document, (0.0, 0))
        disagreement += pairwise_disagreement(counts, self._level) / (len(values) - 1)
        self._documents[document] = disagreement, total + len(values)

    def alpha(self, options: IntervalOptions | None = None) -> Estimate | None:
        """Return alpha with its interval; None without units, or if all values are equal.

        The interval takes the expected disagreement as given, like the bootstrap of Hayes and Krippendorff (2007): then
        alpha is a mean over the values, with the intervals of all other means.
        """
        import numpy as np

        options = options or IntervalOptions()
        count = self._values.total()
        expected = pairwise_disagreement(self._values, self._level) / (count * (count - 1)) if count else 0.0
        if expected == 0:
            return None
        observed = np.array([disagreement for disagreement, _ in self._documents.values()])
        counts = np.array([total for _, total in self._documents.values()], dtype=float)
        largest = (max(self._values) - min(self._values)) ** 2 if self._level == "interval" else 1.0
        bounds = (1 - largest / expected, 1.0)
        lower, upper = limit_draws(
            document_values(counts - observed / expected, counts),
            bounds=bounds,
            resamples=options.resamples,
            seed=options.seed,
        )
        low, high = limits(lower, upper, confidence=options.confidence, bounds=bounds)
        value = 1 - float(observed.sum()) / count / expected
        return Estimate(value, min(float(low), value), max(float(high), value), len(observed))


def pairwise_disagreement(values: Values, level: Level) -> float:
    """Return the sum of the disagreements of all ordered pairs of these values.

    >>> pairwise_disagreement({1: 1, 3: 2}, "interval"), pairwise_disagreement({1: 1, 3: 2}, "nominal")
    (16.0, 4.0)
    """
    count = sum(values.values())
    if level == "nominal":
        return float(count**2 - sum(times**2 for times in values.values()))
    mean = sum(value * times for value, times in values.items()) / count
    return 2 * count * sum(times * (value - mean) ** 2 for value, times in values.items())
