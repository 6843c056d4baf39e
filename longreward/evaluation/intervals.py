"""Confidence intervals for the mean of few documents, on arrays.

The method is Gaffke's bound for the mean of a bounded variable (N. Gaffke, "Three test statistics for a nonparametric
one-sided hypothesis on the mean of a nonnegative variable", 2005; E. Learned-Miller and P. Thomas, arXiv 1905.06208).
Draw weights from a flat Dirichlet distribution over the n documents and one further, unseen document; the upper limit
is a quantile of the weighted means with the unseen document at the upper end of the range, the lower limit one with it
at the lower end. For values 0 and 1 this is the Clopper-Pearson interval.

Most measures have no range, or one far wider than their values. There the end of the range is estimated: it lies
`EXTENSION / n` times the spread of the values beyond the outermost one, and never beyond the known bounds.
`benchmarks/intervals.py` measures the coverage; docs/decisions/2026-11-26-intervals.md has the table.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

Bounds = tuple[float, float]
UNBOUNDED: Bounds = (float("-inf"), float("inf"))
# At 6, a lognormal sample (sigma 1) of 6 documents has a coverage of .93, at 8 of .95. Normal samples pay for it with
# intervals 2.2 times as wide as Student's at 6 documents, 1.3 times at 40 and 1.15 times at 100.
EXTENSION = 8.0


def document_values(totals: "np.ndarray", counts: "np.ndarray") -> "np.ndarray":
    """Return one value per document, such that their plain mean is the mean over all observations.

    Documents differ in their number of observations, so the mean is a ratio of two sums. Its linearization gives each
    document a value with the right influence on it. The documents are the last axis.
    """
    number = counts.sum(axis=-1, keepdims=True)
    mean = totals.sum(axis=-1, keepdims=True) / number
    values: np.ndarray = mean + totals.shape[-1] * (totals - mean * counts) / number
    return values


def limit_draws(
    values: "np.ndarray",
    *,
    bounds: Bounds = UNBOUNDED,
    observed_range: "float | np.ndarray" = 0.0,
    mirrored: bool = False,
    resamples: int,
    seed: int,
    stratum: int = 0,
) -> "tuple[np.ndarray, np.ndarray]":
    """Draw weighted means with the unseen document at the lower and at the upper end of the range.

    The documents are the last axis of `values`, the draws the first axis of both results. `observed_range` is that of
    the single observations; it tells how far documents could differ where all of `values` are equal. `mirrored` is for
    paired differences, where most documents may not differ at all and the few others all in one direction: the unseen
    document may then be as far from the median on the other side. Samples that are independent of each other need
    different strata.
    """
    low_end, high_end = _unseen(values, bounds, observed_range, mirrored)
    weights = _weights(values.shape[-1], resamples, (seed, stratum))
    base = weights[:, :-1] @ values.T  # draws x samples
    last = weights[:, -1].reshape(-1, *(1,) * (values.ndim - 1))
    return base + last * low_end, base + last * high_end


def limits(
    lower: "np.ndarray", upper: "np.ndarray", *, confidence: float, bounds: Bounds = UNBOUNDED
) -> "tuple[np.ndarray, np.ndarray]":
    """Return both limits of the interval from the draws of `limit_draws`."""
    import numpy as np

    tail = (1 - confidence) / 2
    low, high = np.quantile(lower, tail, axis=0), np.quantile(upper, 1 - tail, axis=0)
    # A document with many observations can pull the linearized mean over a bound.
    return np.clip(low, *bounds), np.clip(high, *bounds)


def difference_bounds(bounds: Bounds) -> Bounds:
    """Return the bounds of a difference of two values within `bounds`."""
    low, high = bounds
    return low - high, high - low


def _unseen(
    values: "np.ndarray", bounds: Bounds, observed_range: "float | np.ndarray", mirrored: bool
) -> "tuple[np.ndarray, np.ndarray]":
    """Return the lower and the upper end of the range, as far as the values and the bounds tell it."""
    import numpy as np

    largest, smallest, middle = values.max(axis=-1), values.min(axis=-1), np.median(values, axis=-1)
    spread = largest - smallest
    # Equal values: all that is known of the spread is what single observations show, else the bounds.
    whole = bounds[1] - bounds[0] if np.isfinite(bounds).all() else 0.0
    fallback = np.where(np.asarray(observed_range) > 0, observed_range, whole)
    flat = spread <= 1e-9 * (np.abs(values).max(axis=-1) + fallback)  # sums of floats differ in their last digits
    if mirrored:
        # All documents moved alike: the unseen one may have moved back. The interval then says what a sign test says.
        moved = np.abs(middle) > 1e-9 * fallback
        fallback = np.where(flat & moved, 2 * np.abs(middle), fallback)
    step = np.where(flat, fallback, EXTENSION / values.shape[-1] * spread)
    low_end, high_end = smallest - step, largest + step
    if mirrored:
        low_end, high_end = np.minimum(low_end, 2 * middle - largest), np.maximum(high_end, 2 * middle - smallest)
    low, high = bounds
    return np.minimum(np.maximum(low_end, low), smallest), np.maximum(np.minimum(high_end, high), largest)


@lru_cache(maxsize=4)  # a report's measures share their documents; a matrix of 2,000 draws x 600 documents has 10 MB
def _weights(documents: int, resamples: int, seed: tuple[int, int]) -> "np.ndarray":
    import numpy as np

    weights: np.ndarray = np.random.default_rng(seed).dirichlet(np.ones(documents + 1), size=resamples)
    weights.setflags(write=False)
    return weights
