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
_BATCH = 200  # rows that are converted to floats at a time


def paired_p_value(first: "DocumentSums", second: "DocumentSums") -> float:
    """Return the two-sided p-value of the difference of means; both sides have the same documents, in order.

    Up to 14 documents all 2 ** n swaps are tried, beyond that a random sample with a fixed seed.
    """
    documents = len(first[0])
    exact = 2**documents <= PERMUTATIONS
    swaps = _all_swaps(documents) if exact else _random_swaps(documents)
    # A swap with sign -1 exchanges the sides: second = half sum + sign * half difference; first has the opposite sign.
    totals, counts = ((a + b).sum() / 2 for a, b in zip(first, second, strict=True))
    differences = [(b - a) / 2 for a, b in zip(first, second, strict=True)]
    total_shifts, count_shifts = _products(swaps, differences, values=(1.0, -1.0))
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
    second_totals, second_counts = _products(divisions, (totals, counts), values=(0.0, 1.0))
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


def _products(
    bits: "np.ndarray", columns: "Sequence[np.ndarray]", *, values: tuple[float, float]
) -> "list[np.ndarray]":
    """Return the product with each column of the matrix that has `values` for the zeros and ones of packed bits."""
    import numpy as np

    products = [np.empty(len(bits)) for _ in columns]
    for start in range(0, len(bits), _BATCH):
        batch = slice(start, start + _BATCH)
        rows = np.unpackbits(bits[batch], axis=1, count=len(columns[0])).astype(np.float64)
        rows *= values[1] - values[0]
        rows += values[0]
        for product, column in zip(products, columns, strict=True):
            product[batch] = rows @ column
    return products


@lru_cache(maxsize=2)
def _all_swaps(documents: int) -> "np.ndarray":
    import numpy as np

    return np.packbits((np.arange(2**documents)[:, None] >> np.arange(documents)) & 1, axis=1)


# 20,000 rows for 600 documents have 1.5 MB as bits, 12 MB as bytes.
@lru_cache(maxsize=2)
def _random_swaps(documents: int) -> "np.ndarray":
    import numpy as np

    rng = np.random.default_rng(0)
    shape = (_BATCH, documents)
    batches = (rng.integers(0, 2, size=shape, dtype=np.int8) for _ in range(PERMUTATIONS // _BATCH))
    return np.concatenate([np.packbits(batch, axis=1) for batch in batches])


@lru_cache(maxsize=2)
def _random_divisions(first: int, second: int) -> "np.ndarray":
    """Return rows with `first` zeros and `second` ones, in random order, as packed bits."""
    import numpy as np

    rng = np.random.default_rng(0)
    division = np.repeat(np.array([0, 1], dtype=np.int8), (first, second))
    rows = np.broadcast_to(division, (_BATCH, first + second))
    batches = (rng.permuted(rows, axis=1) for _ in range(PERMUTATIONS // _BATCH))
    return np.concatenate([np.packbits(batch, axis=1) for batch in batches])
