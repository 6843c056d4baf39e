"""Coverage and width of confidence intervals for the mean of few documents, by simulation.

    python benchmarks/intervals.py [--samples 4000] [--documents 6 10 20 40 100]

Compares the intervals of `longreward.evaluation.intervals` with the percentile bootstrap, Student's interval and the
studentized bootstrap. A cell is the share of samples whose 95 % interval holds the true mean, and in brackets the
median width in units of Student's.
"""

import argparse
from collections.abc import Callable

import numpy as np
from scipy import stats

from longreward.evaluation.intervals import UNBOUNDED, Bounds, document_values, limit_draws, limits

RESAMPLES = 1000
Limits = tuple[np.ndarray, np.ndarray]
Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


def percentile(values: np.ndarray, bounds: Bounds, paired: bool) -> Limits:
    """The method of versions before 2026-11-26."""
    means = values @ _resamples(values.shape[1]).T
    return np.quantile(means, 0.025, axis=1), np.quantile(means, 0.975, axis=1)


def student(values: np.ndarray, bounds: Bounds, paired: bool) -> Limits:
    reach = stats.t.ppf(0.975, values.shape[1] - 1) * values.std(axis=1, ddof=1) / values.shape[1] ** 0.5
    return values.mean(axis=1) - reach, values.mean(axis=1) + reach


def studentized(values: np.ndarray, bounds: Bounds, paired: bool) -> Limits:
    weights, mean = _resamples(values.shape[1]), values.mean(axis=1, keepdims=True)
    means = values @ weights.T
    variances = np.maximum((values**2) @ weights.T - means**2, 0)
    variances[variances < 1e-12] = 0
    with np.errstate(all="ignore"):
        ratios = np.nan_to_num((means - mean) / np.sqrt(variances), nan=0.0, posinf=1e9, neginf=-1e9)
    error = values.std(axis=1)
    low = mean[:, 0] - np.quantile(ratios, 0.975, axis=1) * error
    high = mean[:, 0] - np.quantile(ratios, 0.025, axis=1) * error
    return np.maximum(low, bounds[0]), np.minimum(high, bounds[1])


def ours(values: np.ndarray, bounds: Bounds, paired: bool) -> Limits:
    draws = limit_draws(
        values, bounds=bounds, observed_range=1.0 if paired else 0.0, mirrored=paired, resamples=RESAMPLES, seed=0
    )
    return limits(*draws, confidence=0.95, bounds=bounds)


def _resamples(documents: int) -> np.ndarray:
    return np.random.default_rng(0).multinomial(documents, np.full(documents, 1 / documents), RESAMPLES) / documents


def _binary(share: float) -> Draw:
    return lambda random, shape: random.binomial(1, share, shape) * 1.0


def _moves(up: float, down: float) -> Draw:
    return lambda random, shape: random.choice([1.0, 0.0, -1.0], p=[up, 1 - up - down, down], size=shape)


def _clustered(random: np.random.Generator, shape: tuple[int, int], *, binary: bool) -> np.ndarray:
    """One to eight answers a document, which have a common effect of the document."""
    counts, effect = random.integers(1, 9, size=shape), random.normal(size=shape)
    totals = np.zeros(shape)
    for answer in range(8):
        value = effect + random.normal(size=shape)
        totals += (value > -0.8 if binary else value) * (counts > answer)
    return document_values(totals, counts)


SHARE, MOVES = (0.0, 1.0), (-1.0, 1.0)
MOSTLY_ABOVE = stats.norm.cdf(0.8 / 2**0.5)  # of -0.8, for the sum of the document's effect and the answer's
CASES: dict[str, tuple[Draw, float, Bounds, bool]] = {
    "normal": (lambda r, shape: r.normal(size=shape), 0.0, UNBOUNDED, False),
    "exponential": (lambda r, shape: r.exponential(size=shape), 1.0, UNBOUNDED, False),
    "lognormal, sigma 1": (lambda r, shape: r.lognormal(size=shape), np.exp(0.5), UNBOUNDED, False),
    "share, beta(0.5, 3)": (lambda r, shape: r.beta(0.5, 3, size=shape), 0.5 / 3.5, SHARE, False),
    "binary, .5": (_binary(0.5), 0.5, SHARE, False),
    "binary, .2": (_binary(0.2), 0.2, SHARE, False),
    "binary, .05": (_binary(0.05), 0.05, SHARE, False),
    "clustered normal": (lambda r, shape: _clustered(r, shape, binary=False), 0.0, UNBOUNDED, False),
    "clustered binary": (
        lambda r, shape: _clustered(r, shape, binary=True),
        stats.norm.cdf(0.8 / 2**0.5),
        SHARE,
        False,
    ),
    "difference, normal": (lambda r, shape: r.normal(0.3, 1, shape), 0.3, UNBOUNDED, True),
    "difference, 70 % zero": (
        lambda r, shape: r.normal(0.2, 1, shape) * r.binomial(1, 0.3, shape),
        0.06,
        UNBOUNDED,
        True,
    ),
    "difference, 5 % +1, 5 % -1": (_moves(0.05, 0.05), 0.0, MOVES, True),
    "difference, 10 % +1": (_moves(0.1, 0.0), 0.1, MOVES, True),
    "difference, 40 % +1, 15 % -1": (_moves(0.4, 0.15), 0.25, MOVES, True),
}
METHODS = {"percentile": percentile, "Student": student, "studentized": studentized, "ours": ours}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=4000)
    parser.add_argument("--documents", type=int, nargs="+", default=[6, 10, 20, 40, 100])
    arguments = parser.parse_args()
    print(f"| values | documents | {' | '.join(METHODS)} |")
    print("|---" * (2 + len(METHODS)) + "|")
    for name, (draw, truth, bounds, paired) in CASES.items():
        for documents in arguments.documents:
            values = draw(np.random.default_rng(documents), (arguments.samples, documents))
            found = {method: interval(values, bounds, paired) for method, interval in METHODS.items()}
            usual = np.median(found["Student"][1] - found["Student"][0])
            cells = []
            for low, high in found.values():
                covered = np.mean((low <= truth + 1e-9) & (truth - 1e-9 <= high))
                width = f" ({np.median(high - low) / usual:.2f})" if usual > 1e-9 else ""
                cells.append(f"{covered:.3f}{width}")
            print(f"| {name} | {documents} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
