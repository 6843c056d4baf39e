"""A logistic model of shares between 0 and 1, with an L1 penalty that is chosen in folds: the library `alpaca_eval`'s.

Each case stands in it twice, as a win and as a loss, weighted by its share.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longreward.benchmarks.types import IntervalOptions
from longreward.errors import DataError
from longreward.evaluation.statistics import Estimate

if TYPE_CHECKING:
    import numpy as np

STRENGTHS = 10  # inverse penalties from 1e-4 to 1e4, evenly on their logarithm
FOLDS = 5
SEED = 123


class LogisticFit:
    """Fits of one model to the same cases under several weights: `features` a row a case, `shares` 0 to 1."""

    def __init__(self, features: "np.ndarray", shares: "np.ndarray") -> None:
        self._features, self._shares = features, shares

    def to(self, weights: "np.ndarray", strength: float) -> Any:
        """The model, as scikit-learn has it, with each case weighted."""
        twice, won, weight = self._twice(weights)
        there = weight > 0  # the others change nothing but the time it takes
        return _regression(strength).fit(twice[there], won[there], sample_weight=weight[there])

    def best_strength(self, weights: "np.ndarray") -> float:
        """The inverse penalty under which the log loss on cases left out of the fit, each weighted, is the least."""
        import numpy as np
        from sklearn.model_selection import GroupKFold  # type: ignore[import-untyped]

        twice, won, weight = self._twice(weights)
        cases = np.concatenate([np.arange(len(self._shares))] * 2)
        losses = np.zeros(STRENGTHS)
        for train, test in GroupKFold(n_splits=FOLDS).split(twice, won, cases):
            held = cases[test]
            for place, strength in enumerate(self._strengths):
                fitted = _regression(strength).fit(twice[train], won[train], sample_weight=weight[train])
                predicted = fitted.predict_proba(twice[test])[:, 1]
                losses[place] += _log_loss(self._shares[held], predicted, weights[held])
        return float(self._strengths[losses.argmin()])

    @cached_property
    def _strengths(self) -> "np.ndarray":
        import numpy as np

        return np.logspace(-4, 4, STRENGTHS)

    def _twice(self, weights: "np.ndarray") -> "tuple[np.ndarray, np.ndarray, np.ndarray]":
        """Features, labels and weights."""
        import numpy as np

        count = len(self._shares)
        labels = np.concatenate([np.ones(count, dtype=int), np.zeros(count, dtype=int)])
        weight = np.concatenate([self._shares * weights, (1 - self._shares) * weights])
        return np.concatenate([self._features, self._features]), labels, weight


def _regression(strength: float) -> Any:
    import sklearn  # type: ignore[import-untyped]
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

    # Since 1.8 the penalty is told by its share of L1.
    new = tuple(int(part) for part in sklearn.__version__.split(".")[:2]) >= (1, 8)
    penalty = {"l1_ratio": 1.0} if new else {"penalty": "l1"}
    return LogisticRegression(C=strength, solver="liblinear", fit_intercept=False, random_state=SEED, **penalty)


def _log_loss(shares: "np.ndarray", predicted: "np.ndarray", weights: "np.ndarray") -> float:
    import numpy as np

    p = np.clip(predicted, 1e-15, 1 - 1e-15)
    return float(-np.mean(weights * (shares * np.log(p) + (1 - shares) * np.log(1 - p))))


# What the win rate would be if the model's answers were as long as the baseline's.
#
# A logistic model of the win share, fitted to all cases, is asked again with the difference in length set to 0:
#
#     share ~ logistic(a * tanh(difference in length / its standard deviation) + b * difficulty + c)
#
# With `df_gamed.csv` this is the library's `length_controlled_v1`: the file says how hard each instruction
# is, and holds
# annotations of the baseline against itself told to be longer or shorter, which take part with a fifth of
# the weight and
# without c. Without the file it is the library's `length_controlled_minimal`: no difficulty, no such annotations.
#
# The fit is the library's: an L1 penalty by liblinear, of ten strengths the best under the log loss in five folds.


if TYPE_CHECKING:
    import numpy as np

GAMED_WEIGHT = 0.2 / 2  # of each annotation of the gamed baselines: there are two of them
REFITS = 100  # for the interval, at most


@dataclass(frozen=True)
class GamedBaselines:
    """`df_gamed.csv`, with the columns index, preference (0 to 1), std_delta_len and instruction_difficulty."""

    rows: tuple[tuple[float, float, float], ...]  # standardised difference in length, difficulty, preference
    difficulty: Mapping[int, float]


@dataclass(frozen=True)
class AnswerLengths:
    """One case: the place of its instruction, the answers' lengths in characters, the model's win share (0 to 1)."""

    index: int
    baseline: int
    model: int
    share: float | None  # None: no preference could be read; it does not take part in the fit


def read_gamed(path: Path) -> GamedBaselines:
    """The file as published; DataError where it is not as above."""
    rows: list[tuple[float, float, float]] = []
    difficulty: dict[int, float] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                try:
                    if row["not_gamed_baseline"].strip().lower() != "false":
                        raise ValueError(f"not_gamed_baseline is {row['not_gamed_baseline']!r}, expected False")
                    hard = float(row["instruction_difficulty"])
                    preference = float(row["preference"] or "nan")  # nobody could read that annotation
                    rows.append((float(row["std_delta_len"]), hard, preference))
                    difficulty.setdefault(int(float(row["index"])), hard)
                except (KeyError, ValueError, TypeError, AttributeError) as error:
                    why = f"no column {error}" if isinstance(error, KeyError) else str(error)
                    raise DataError(f"{path}, line {number}: {why}; fetch the file anew") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not rows:
        raise DataError(f"{path} holds no row; fetch it anew")
    return GamedBaselines(tuple(rows), difficulty)


def length_controlled(
    cases: Sequence[AnswerLengths], gamed: GamedBaselines | None, intervals: IntervalOptions
) -> Estimate | None:
    """The mean over the cases, times 100, of the win share that is left without their difference in length.

    The interval is Student's around the rate, with the standard error of fits to resampled cases under the penalty that
    was found best. None where nothing can be
    fitted: fewer cases than folds, or differences in length that are all the same. Raises DataError where `gamed` does
    not know an instruction.
    """
    import numpy as np
    from scipy.stats import t as student_t  # type: ignore[import-untyped]

    lengths = np.array([case.baseline - case.model for case in cases], dtype=float)
    if sum(case.share is not None for case in cases) < FOLDS or not (spread := lengths.std(ddof=1)):
        return None
    hard = np.array([_difficulty(gamed, case.index) for case in cases])
    known = np.array([case.share is not None for case in cases])
    own = np.column_stack([np.tanh(lengths / spread), hard, np.ones(len(cases))])
    features, shares = own[known], np.array([case.share for case in cases if case.share is not None])
    weights, others = np.ones(len(shares)), 0
    if gamed is not None:
        rows = np.array([row for row in gamed.rows if not math.isnan(row[2])])
        others = len(rows)
        gamed_features = np.column_stack([np.tanh(rows[:, 0]), rows[:, 1], np.zeros(others)])
        features, shares = np.concatenate([gamed_features, features]), np.concatenate([rows[:, 2], shares])
        weights = np.concatenate([np.full(others, GAMED_WEIGHT), weights])
    used = [0, 1, 2] if gamed is not None else [0, 2]
    level = np.column_stack([np.zeros(len(cases)), hard, np.ones(len(cases))])[:, used]
    fit = LogisticFit(features[:, used], shares)
    strength = fit.best_strength(weights)

    def mean(times: "np.ndarray") -> float:
        """Where each case stands in the data that many times."""
        own_weights = np.concatenate([weights[:others], times[known]])
        predicted = fit.to(own_weights, strength).predict_proba(level)[:, 1]
        return 100 * float(np.average(predicted, weights=times))

    random = np.random.default_rng(intervals.seed)
    even = np.full(len(cases), 1 / len(cases))
    drawn = [mean(random.multinomial(len(cases), even)) for _ in range(min(REFITS, intervals.resamples))]
    # A hundred fits are too few for quantiles of their own, and resamples of n cases vary by (n - 1) / n too little.
    error = float(np.std(drawn, ddof=1)) * math.sqrt(len(cases) / (len(cases) - 1))
    reach = float(student_t.ppf((1 + intervals.confidence) / 2, len(cases) - 1)) * error
    value = mean(np.ones(len(cases)))
    return Estimate(value, max(0.0, value - reach), min(100.0, value + reach), len(cases))


def _difficulty(gamed: GamedBaselines | None, index: int) -> float:
    if gamed is None:
        return 0.0
    if index not in gamed.difficulty:
        raise DataError(
            f"df_gamed.csv knows no instruction {index}: it belongs to the published {len(gamed.difficulty)}; leave it "
            "out for other instructions"
        )
    return gamed.difficulty[index]
