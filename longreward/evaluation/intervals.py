"""Confidence intervals for the mean of few documents, on arrays.

The method is Gaffke's bound for the mean of a bounded variable (N. Gaffke, "Three test statistics for a nonparametric
one-sided hypothesis on the mean of a nonnegative variable", 2005; E. Learned-Miller and P. Thomas, arXiv 1905.06208).
It is a Bayesian bootstrap with one unseen document: weights are drawn from a flat Dirichlet distribution over the n
documents and the unseen one. The upper limit is a quantile of the weighted means with the unseen document at the upper
end of the range; the lower limit has it at the lower end. For values 0 and 1 this is the Clopper-Pearson interval.
`scipy.stats.bootstrap` has no such method; its intervals are too narrow for few documents.

Most measures are unbounded, or have a range far wider than their values. Then the end of the range is estimated: it is
`EXTENSION / n` times the spread of the values beyond the outermost value, but within the bounds.
`benchmarks/intervals.py` measures the coverage; docs/decisions/2026-11-26-intervals.md has the table.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

Bounds = tuple[float, float]
UNBOUNDED: Bounds = (float("-inf"), float("inf"))
# A lognormal sample (sigma 1) of 6 documents has a coverage of 0.93 with 6 and of 0.95 with 8. The cost: for normal
# samples, intervals are 2.2 times as wide as Student's at 6 documents, 1.3 times at 40 and 1.15 times at 100.
EXTENSION = 8.0


def document_values(totals: "np.ndarray", counts: "np.ndarray") -> "np.ndarray":
    """Return one value per document, such that their unweighted mean is the mean over all observations.

    Documents have different numbers of observations, so the mean is a ratio of two sums. Its linearization gives each
    document's influence on it. The last axis are the documents.
    """
    observations = counts.sum(axis=-1, keepdims=True)
    mean = totals.sum(axis=-1, keepdims=True) / observations
    values: np.ndarray = mean + totals.shape[-1] * (totals - mean * counts) / observations
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

    Args:
        values: One value per document (last axis).
        observed_range: Range of the single observations, the estimate of the spread if all `values` are equal.
        mirrored: For paired differences. If only few documents differ, all in one direction, the unseen document may
            be as far from the median in the other direction.
        stratum: Independent samples need different strata, which select different random numbers.

    Returns:
        Both arrays with the draws as first axis.
    """
    low_end, high_end = _range_ends(values, bounds, observed_range, mirrored)
    weights = _weights(values.shape[-1], resamples, (seed, stratum))
    base = weights[:, :-1] @ values.T  # draws x samples
    unseen = weights[:, -1].reshape(-1, *(1,) * (values.ndim - 1))
    return base + unseen * low_end, base + unseen * high_end


def limits(
    lower: "np.ndarray", upper: "np.ndarray", *, confidence: float, bounds: Bounds = UNBOUNDED
) -> "tuple[np.ndarray, np.ndarray]":
    """Return both limits of the confidence interval from the draws of `limit_draws`."""
    import numpy as np

    tail = (1 - confidence) / 2
    low, high = np.quantile(lower, tail, axis=0), np.quantile(upper, 1 - tail, axis=0)
    # The linearized value of a document with many observations can be out of bounds.
    return np.clip(low, *bounds), np.clip(high, *bounds)


def difference_bounds(bounds: Bounds) -> Bounds:
    """Return the bounds of a difference of two values within `bounds`."""
    low, high = bounds
    return low - high, high - low


def _range_ends(
    values: "np.ndarray", bounds: Bounds, observed_range: "float | np.ndarray", mirrored: bool
) -> "tuple[np.ndarray, np.ndarray]":
    """Estimate the lower and the upper end of the range from the values and the bounds."""
    import numpy as np

    largest, smallest, middle = values.max(axis=-1), values.min(axis=-1), np.median(values, axis=-1)
    spread = largest - smallest
    # For equal values, estimate the spread from the single observations, otherwise from the bounds.
    full_range = bounds[1] - bounds[0] if np.isfinite(bounds).all() else 0.0
    fallback = np.where(np.asarray(observed_range) > 0, observed_range, full_range)
    flat = spread <= 1e-9 * (np.abs(values).max(axis=-1) + fallback)  # up to rounding errors of sums
    if mirrored:
        # All differences are equal and not zero: the unseen one may be the opposite. The interval then excludes zero
        # when a sign test is significant.
        differs = np.abs(middle) > 1e-9 * fallback
        fallback = np.where(flat & differs, 2 * np.abs(middle), fallback)
    step = np.where(flat, fallback, EXTENSION / values.shape[-1] * spread)
    low_end, high_end = smallest - step, largest + step
    if mirrored:
        low_end, high_end = np.minimum(low_end, 2 * middle - largest), np.maximum(high_end, 2 * middle - smallest)
    low, high = bounds
    return np.minimum(np.maximum(low_end, low), smallest), np.maximum(np.minimum(high_end, high), largest)


# The measures of a report share their documents, so that few matrices are needed; 2,000 x 600 numbers have 10 MB.
@lru_cache(maxsize=4)
def _weights(documents: int, resamples: int, seed: tuple[int, int]) -> "np.ndarray":
    import numpy as np

    weights: np.ndarray = np.random.default_rng(seed).dirichlet(np.ones(documents + 1), size=resamples)
    weights.setflags(write=False)
    return weights
