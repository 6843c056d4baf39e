"""Coverage and width of confidence intervals for the mean of few documents, by simulation.

    python benchmarks/intervals.py [--samples 4000] [--documents 6 10 20 40 100]

Compares `longreward.evaluation.intervals` ("Gaffke") with the percentile bootstrap, Student's t interval and the
studentized bootstrap. A cell is the share of samples whose 95 % interval contains the true mean, and in brackets the
median width relative to Student's.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from common import argument_parser
from scipy import stats  # type: ignore[import-untyped]

from longreward.evaluation.intervals import UNBOUNDED, Bounds, document_values, limit_draws, limits

RESAMPLES = 1000
PROPORTION, DIFFERENCE = (0.0, 1.0), (-1.0, 1.0)  # bounds
Limits = tuple[np.ndarray, np.ndarray]
Sampler = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
"""Returns values of the given shape: samples by documents."""


class Distribution(NamedTuple):
    """The distribution of the documents' values."""

    sample: Sampler
    mean: float
    bounds: Bounds = UNBOUNDED
    paired: bool = False
    """Whether the values are differences between two systems."""


def percentile(values: np.ndarray, distribution: Distribution) -> Limits:
    """Return the limits of the percentile bootstrap."""
    means = values @ resampling_weights(values.shape[1]).T
    return np.quantile(means, 0.025, axis=1), np.quantile(means, 0.975, axis=1)


def student(values: np.ndarray, distribution: Distribution) -> Limits:
    """Return the limits of Student's t interval."""
    documents = values.shape[1]
    margin = stats.t.ppf(0.975, documents - 1) * values.std(axis=1, ddof=1) / documents**0.5
    return values.mean(axis=1) - margin, values.mean(axis=1) + margin


def studentized(values: np.ndarray, distribution: Distribution) -> Limits:
    """Return the limits of the studentized bootstrap."""
    weights, mean = resampling_weights(values.shape[1]), values.mean(axis=1, keepdims=True)
    means = values @ weights.T
    variances = np.maximum((values**2) @ weights.T - means**2, 0)
    variances[variances < 1e-12] = 0  # rounding errors of resamples with equal values
    with np.errstate(all="ignore"):
        ratios = np.nan_to_num((means - mean) / np.sqrt(variances), nan=0.0, posinf=1e9, neginf=-1e9)
    deviation = values.std(axis=1)
    low = mean[:, 0] - np.quantile(ratios, 0.975, axis=1) * deviation
    high = mean[:, 0] - np.quantile(ratios, 0.025, axis=1) * deviation
    return np.maximum(low, distribution.bounds[0]), np.minimum(high, distribution.bounds[1])


def gaffke(values: np.ndarray, distribution: Distribution) -> Limits:
    """Return the limits of the library."""
    draws = limit_draws(
        values,
        bounds=distribution.bounds,
        observed_range=1.0 if distribution.paired else 0.0,
        mirrored=distribution.paired,
        resamples=RESAMPLES,
        seed=0,
    )
    return limits(*draws, confidence=0.95, bounds=distribution.bounds)


def resampling_weights(documents: int) -> np.ndarray:
    """Return the weight of each document in each bootstrap resample."""
    return np.random.default_rng(0).multinomial(documents, np.full(documents, 1 / documents), RESAMPLES) / documents


def bernoulli(share: float) -> Distribution:
    return Distribution(lambda rng, shape: rng.binomial(1, share, shape) * 1.0, share, PROPORTION)


def changes(up: float, down: float) -> Distribution:
    """Return differences of 1, -1 and otherwise 0."""
    probabilities = [up, 1 - up - down, down]
    return Distribution(
        lambda rng, shape: rng.choice([1.0, 0.0, -1.0], p=probabilities, size=shape), up - down, DIFFERENCE, paired=True
    )


def sample_clusters(rng: np.random.Generator, shape: tuple[int, int], *, binary: bool) -> np.ndarray:
    """Sample one to eight answers per document, which share a random effect of the document."""
    counts, effect = rng.integers(1, 9, size=shape), rng.normal(size=shape)
    totals = np.zeros(shape)
    for answer in range(8):
        value = effect + rng.normal(size=shape)
        totals += (value > -0.8 if binary else value) * (counts > answer)
    return document_values(totals, counts)


def sample_mostly_zero(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.normal(0.2, 1, shape) * rng.binomial(1, 0.3, shape)


# Probability that the sum of the document's effect and the answer's, of variance 2, exceeds -0.8.
CLUSTERED_SHARE = float(stats.norm.cdf(0.8 / 2**0.5))
DISTRIBUTIONS = {
    "normal": Distribution(lambda rng, shape: rng.normal(size=shape), 0.0),
    "exponential": Distribution(lambda rng, shape: rng.exponential(size=shape), 1.0),
    "lognormal, sigma 1": Distribution(lambda rng, shape: rng.lognormal(size=shape), float(np.exp(0.5))),
    "share, beta(0.5, 3)": Distribution(lambda rng, shape: rng.beta(0.5, 3, size=shape), 0.5 / 3.5, PROPORTION),
    "binary, .5": bernoulli(0.5),
    "binary, .2": bernoulli(0.2),
    "binary, .05": bernoulli(0.05),
    "clustered normal": Distribution(partial(sample_clusters, binary=False), 0.0),
    "clustered binary": Distribution(partial(sample_clusters, binary=True), CLUSTERED_SHARE, PROPORTION),
    "difference, normal": Distribution(lambda rng, shape: rng.normal(0.3, 1, shape), 0.3, paired=True),
    "difference, 70 % zero": Distribution(sample_mostly_zero, 0.06, paired=True),
    "difference, 5 % +1, 5 % -1": changes(0.05, 0.05),
    "difference, 10 % +1": changes(0.1, 0.0),
    "difference, 40 % +1, 15 % -1": changes(0.4, 0.15),
}
METHODS = {"percentile": percentile, "Student": student, "studentized": studentized, "Gaffke": gaffke}


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--documents", type=int, nargs="+", default=[6, 10, 20, 40, 100])
    options = parser.parse_args()
    print(f"| values | documents | {' | '.join(METHODS)} |")
    print("|---" * (2 + len(METHODS)) + "|")
    for name, distribution in DISTRIBUTIONS.items():
        for documents in options.documents:
            # One generator per number of documents: rows of the table do not depend on the selected numbers.
            values = distribution.sample(np.random.default_rng(documents), (options.samples, documents))
            intervals = {method: interval(values, distribution) for method, interval in METHODS.items()}
            student_width = np.median(intervals["Student"][1] - intervals["Student"][0])
            cells = [format_cell(low, high, distribution.mean, student_width) for low, high in intervals.values()]
            print(f"| {name} | {documents} | {' | '.join(cells)} |")


def format_cell(low: np.ndarray, high: np.ndarray, mean: float, student_width: float) -> str:
    """Return the coverage and the relative width; no width if most samples have only equal values."""
    coverage = np.mean((low <= mean + 1e-9) & (mean - 1e-9 <= high))
    width = f" ({np.median(high - low) / student_width:.2f})" if student_width > 1e-9 else ""
    return f"{coverage:.3f}{width}"


if __name__ == "__main__":
    main()
