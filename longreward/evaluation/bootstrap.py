"""Means and differences with percentile intervals, resampled by document: answers about one text belong together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A mean, or a difference of means, with its interval."""

    value: float
    low: float
    high: float
    documents: int  # that were resampled

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero, and stands on enough documents to mean anything."""
        return self.documents >= LEAST_DOCUMENTS and (self.low > 0 or self.high < 0)


Observation = tuple[str, float]  # document, value


def mean(observations: Iterable[Observation], *, resamples: int, confidence: float, seed: int) -> Estimate | None:
    """The mean over all observations; None where there are none."""
    return _estimate([list(observations)], resamples=resamples, confidence=confidence, seed=seed)


def difference(
    first: Iterable[Observation], second: Iterable[Observation], *, resamples: int, confidence: float, seed: int
) -> Estimate | None:
    """Mean of `second` minus mean of `first`, resampled on the same documents; None where a side is empty."""
    return _estimate([list(first), list(second)], resamples=resamples, confidence=confidence, seed=seed)


def _estimate(sides: Sequence[list[Observation]], *, resamples: int, confidence: float, seed: int) -> Estimate | None:
    import numpy as np

    if not all(sides):
        return None
    documents = {name: place for place, name in enumerate(sorted({name for side in sides for name, _ in side}))}
    picks = np.random.default_rng(seed).integers(len(documents), size=(resamples, len(documents)))
    value, drawn = 0.0, np.zeros(resamples)
    for sign, side in zip((-1.0, 1.0) if len(sides) == 2 else (1.0,), sides, strict=True):
        totals, counts = np.zeros(len(documents)), np.zeros(len(documents))
        for name, observed in side:
            totals[documents[name]] += observed
            counts[documents[name]] += 1
        value += sign * float(totals.sum() / counts.sum())
        drawn += sign * _ratio(totals[picks].sum(axis=1), counts[picks].sum(axis=1))
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(drawn, [tail, 1 - tail])
    return Estimate(value, float(low), float(high), len(documents))


def _ratio(totals: "np.ndarray", counts: "np.ndarray") -> "np.ndarray":
    """Means of the resamples; one that drew no document of this side is left out (nan)."""
    import numpy as np

    means: np.ndarray = np.divide(totals, counts, out=np.full_like(totals, np.nan), where=counts > 0)
    return means


LEAST_DOCUMENTS = 6  # that all of five go one way happens by chance in 6 % of cases, of six in 3 %
