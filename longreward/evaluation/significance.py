"""Permutation tests of differences, and Holm's correction for multiple tests.

Under the null hypothesis the two models are exchangeable within each document. The observed difference is therefore
compared with the differences after swapping the models' answers document by document. The test is exact for any
distribution of the measure. With n documents the smallest p-value is 2 ** (1 - n).

`scipy.stats.permutation_test` permutes single observations of equal samples. Here, documents with different numbers of
answers are permuted as a whole and the statistic is a difference of ratios; with one answer per document the p-values
agree with scipy's (test_significance.py). scipy has no Holm correction either.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    DocumentSums = tuple[np.ndarray, np.ndarray]  # the sum and the number of each document's observations

PERMUTATIONS = 20_000  # the smallest p-value, 1 / 20,001, stays below 0.02 after a correction for 300 differences
_BATCH = 2_000


def paired_p_value(first: "DocumentSums", second: "DocumentSums") -> float:
    """Return the two-sided p-value of the difference of means; both sides have the same documents, in order.

    Up to 14 documents all 2 ** n swaps are tried, beyond that a random sample with a fixed seed.
    """
    documents = len(first[0])
    exact = 2**documents <= PERMUTATIONS
    swaps = _all_swaps(documents) if exact else _random_swaps(documents)
    # A swap with sign -1 exchanges the sides: second = half sum + sign * half difference; first has the opposite sign.
    totals, counts = ((a + b).sum() / 2 for a, b in zip(first, second, strict=True))
    total_shifts, count_shifts = (_products(swaps, (b - a) / 2) for a, b in zip(first, second, strict=True))
    permuted = _ratio(totals + total_shifts, counts + count_shifts) - _ratio(
        totals - total_shifts, counts - count_shifts
    )
    observed = second[0].sum() / second[1].sum() - first[0].sum() / first[1].sum()
    return _p_value(observed, permuted, exact=exact)


def unpaired_p_value(first: "DocumentSums", second: "DocumentSums") -> float:
    """Return the two-sided p-value of the difference of means of two samples without common documents."""
    import numpy as np

    totals, counts = (np.concatenate(parts) for parts in zip(first, second, strict=True))
    divisions = _random_divisions(len(first[0]), len(second[0]))
    second_totals, second_counts = _products(divisions, totals), _products(divisions, counts)
    first_means = _ratio(totals.sum() - second_totals, counts.sum() - second_counts)
    permuted = _ratio(second_totals, second_counts) - first_means
    observed = second[0].sum() / second[1].sum() - first[0].sum() / first[1].sum()
    return _p_value(observed, permuted, exact=False)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values after Holm's step-down correction (1979), in the same order.

    It controls the family-wise error rate for any dependence between the measures: if all differences with a corrected
    p-value of at most 5 % are called real, at most 5 % of reports contain a false one.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = running
    return corrected


def least_documents(level: float, tests: int = 1) -> int:
    """Return the smallest number of documents for which the paired test can reach `level` after the correction.

    >>> least_documents(0.05), least_documents(0.05, tests=33)
    (6, 11)
    """
    return 1 + math.ceil(math.log2(max(tests, 1) / level))


def _p_value(observed: float, permuted: "np.ndarray", *, exact: bool) -> float:
    import numpy as np

    # The tolerance keeps rounding errors from excluding the observed assignment itself.
    extreme = int(np.count_nonzero(np.abs(permuted) >= abs(observed) * (1 - 1e-9) - 1e-12))
    # A random sample does not contain the observed assignment: add it, so that p is never 0 (Phipson and Smyth, 2010).
    return extreme / len(permuted) if exact else (extreme + 1) / (len(permuted) + 1)


def _ratio(totals: "np.ndarray", counts: "np.ndarray") -> "np.ndarray":
    """Return means; 0 for a side without observations after a swap, which conservatively counts as a difference."""
    import numpy as np

    means: np.ndarray = np.divide(totals, counts, out=np.zeros_like(totals), where=counts > 1e-9)
    return means


def _products(matrix: "np.ndarray", column: "np.ndarray") -> "np.ndarray":
    """Return the product of a matrix of small integers with a column."""
    import numpy as np

    # 20,000 x 600 signs have 12 MB as int8; only a batch of rows at a time is converted to floats for the product.
    batches = np.array_split(matrix, max(1, len(matrix) // _BATCH))
    return np.concatenate([rows.astype(np.float64) @ column for rows in batches])


@lru_cache(maxsize=2)
def _all_swaps(documents: int) -> "np.ndarray":
    import numpy as np

    bits = (np.arange(2**documents)[:, None] >> np.arange(documents)) & 1
    swaps: np.ndarray = (1 - 2 * bits).astype(np.int8)
    swaps.setflags(write=False)
    return swaps


@lru_cache(maxsize=2)
def _random_swaps(documents: int) -> "np.ndarray":
    import numpy as np

    bits = np.random.default_rng(0).integers(0, 2, size=(PERMUTATIONS, documents), dtype=np.int8)
    swaps: np.ndarray = 1 - 2 * bits
    swaps.setflags(write=False)
    return swaps


@lru_cache(maxsize=2)
def _random_divisions(first: int, second: int) -> "np.ndarray":
    """Return rows with `first` zeros and `second` ones, in random order."""
    import numpy as np

    divisions = np.zeros((PERMUTATIONS, first + second), dtype=np.int8)
    divisions[:, first:] = 1
    np.random.default_rng(0).permuted(divisions, axis=1, out=divisions)
    divisions.setflags(write=False)
    return divisions
