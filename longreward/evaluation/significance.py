"""Tests of differences by permutation, and the correction for many of them.

Under the null hypothesis the two models are exchangeable: which of them gave which answers to a document is chance.
So the observed difference is compared with those after swapping the two models' answers document by document. The test
is exact whatever the measure's distribution. With n documents no p-value is below 2 ** (1 - n).
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    Tally = tuple[np.ndarray, np.ndarray]
    """The sum and the number of each document's observations."""

PERMUTATIONS = 20_000  # p-values down to 1 / 20,001, which a correction for 300 differences leaves below .02
_BATCH = 2_000


def paired_p_value(first: "Tally", second: "Tally") -> float:
    """Return the two-sided p-value of the difference of means; both tallies are of the same documents, in order.

    All 2 ** n swaps are tried up to 14 documents, else a seeded random sample of them.
    """
    documents = len(first[0])
    exact = 2**documents <= PERMUTATIONS
    swaps = _all_swaps(documents) if exact else _random_swaps(documents)
    half_sum = [(a + b) / 2 for a, b in zip(first, second, strict=True)]
    half_gap = [(b - a) / 2 for a, b in zip(first, second, strict=True)]
    moved = [_products(swaps, gap) for gap in half_gap]
    totals, counts = (part.sum() for part in half_sum)
    drawn = _ratio(totals + moved[0], counts + moved[1]) - _ratio(totals - moved[0], counts - moved[1])
    observed = second[0].sum() / second[1].sum() - first[0].sum() / first[1].sum()
    return _p_value(observed, drawn, exact=exact)


def unpaired_p_value(first: "Tally", second: "Tally") -> float:
    """Return the two-sided p-value of the difference of means of two samples without a document in common."""
    import numpy as np

    totals, counts = (np.concatenate(parts) for parts in zip(first, second, strict=True))
    divisions = _random_divisions(len(first[0]), len(second[0]))
    theirs = [_products(divisions, column) for column in (totals, counts)]
    drawn = _ratio(*theirs) - _ratio(totals.sum() - theirs[0], counts.sum() - theirs[1])
    observed = second[0].sum() / second[1].sum() - first[0].sum() / first[1].sum()
    return _p_value(observed, drawn, exact=False)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values after Holm's step-down correction (1979), in the order given.

    Calling all differences with a corrected value of at most 5 % real is wrong about any of them in at most 5 % of
    reports, however the measures depend on each other.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = running
    return corrected


def least_documents(level: float, tests: int = 1) -> int:
    """Return the fewest documents with which the paired test can reach `level` after a correction for `tests`.

    >>> least_documents(0.05), least_documents(0.05, tests=33)
    (6, 11)
    """
    return 1 + math.ceil(math.log2(max(tests, 1) / level))


def _p_value(observed: float, drawn: "np.ndarray", *, exact: bool) -> float:
    import numpy as np

    # The observed assignment is one of the exact ones; rounding must not make it smaller than itself.
    reached = int(np.count_nonzero(np.abs(drawn) >= abs(observed) * (1 - 1e-9) - 1e-12))
    return reached / len(drawn) if exact else (reached + 1) / (len(drawn) + 1)


def _ratio(totals: "np.ndarray", counts: "np.ndarray") -> "np.ndarray":
    """Return means; 0 for a side that a swap left without an answer, which counts as a large difference."""
    import numpy as np

    means: np.ndarray = np.divide(totals, counts, out=np.zeros_like(totals), where=counts > 1e-9)
    return means


def _products(matrix: "np.ndarray", column: "np.ndarray") -> "np.ndarray":
    """Return the product of a matrix of small integers with a column."""
    import numpy as np

    # int8 keeps 20,000 x 600 signs at 12 MB; the product needs floats, made for a batch of rows at a time.
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
