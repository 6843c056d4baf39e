"""The length-controlled win rate: the win rate if the model's answers were as long as the baseline's.

A logistic model of the win share is fitted to all cases and evaluated with the difference in length set to 0:

    share ~ logistic(a * tanh(length difference / its standard deviation) + b * difficulty + c)

With `df_gamed.csv` this is `length_controlled_v1` of the library `alpaca_eval`: the file has the difficulty of each
instruction and annotations of the baseline prompted for longer and shorter answers. These annotations take part in the
fit with a fifth of the weight and without c. Without the file it is the library's `length_controlled_minimal`.

As in the library, the fit has an L1 penalty (liblinear); its strength is selected by the log loss in five folds. The
library computes no interval. `test_length_control.py` compares the rates with those of alpaca_eval 0.6.6.
"""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longreward.errors import DataError
from longreward.evaluation.statistics import Estimate, IntervalOptions

if TYPE_CHECKING:
    import numpy as np

GAMED_WEIGHT = 0.2 / 2  # of each annotation of the two gamed baselines
REFITS = 100  # for the interval
STRENGTHS, FOLDS, SEED = 10, 5, 123  # the library's values; inverse penalties from 1e-4 to 1e4


@dataclass(frozen=True)
class GamedBaselines:
    """The content of `df_gamed.csv`."""

    rows: tuple[tuple[float, float, float], ...]  # standardized length difference, difficulty, preference
    difficulty: Mapping[int, float]  # by the index of the instruction


@dataclass(frozen=True)
class AnswerLengths:
    """One case: the index of its instruction, the lengths of both answers in characters, the model's win share."""

    index: int
    baseline: int
    model: int
    share: float | None  # None: unscored; not part of the fit


def read_gamed_baselines(path: Path) -> GamedBaselines:
    """Read the published `df_gamed.csv`. Raises DataError."""
    rows: list[tuple[float, float, float]] = []
    difficulty: dict[int, float] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for line, row in enumerate(csv.DictReader(file), start=2):
                try:
                    if row["not_gamed_baseline"].strip().lower() != "false":
                        raise ValueError(f"not_gamed_baseline is {row['not_gamed_baseline']!r}, expected False")
                    instruction_difficulty = float(row["instruction_difficulty"])
                    preference = float(row["preference"] or "nan")  # empty: the annotation was unreadable
                    rows.append((float(row["std_delta_len"]), instruction_difficulty, preference))
                    difficulty.setdefault(int(float(row["index"])), instruction_difficulty)
                except (KeyError, ValueError, TypeError, AttributeError) as error:
                    reason = f"no column {error}" if isinstance(error, KeyError) else str(error)
                    raise DataError(f"{path}, line {line}: {reason}; fetch the file again") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not rows:
        raise DataError(f"{path} has no rows; fetch the file again")
    return GamedBaselines(tuple(rows), difficulty)


def length_controlled_win_rate(
    cases: Sequence[AnswerLengths], gamed: GamedBaselines | None, options: IntervalOptions
) -> Estimate | None:
    """Return the length-controlled win rate in percent; None with fewer cases than folds or equal length differences.

    The interval is Student's. Its standard error is that of refits to resampled cases with the selected penalty.
    Raises DataError if `gamed` lacks an instruction.
    """
    import numpy as np
    from scipy.stats import t as student_t  # type: ignore[import-untyped]

    lengths = np.array([case.baseline - case.model for case in cases], dtype=float)
    if sum(case.share is not None for case in cases) < FOLDS or not (spread := lengths.std(ddof=1)):
        return None
    difficulty = np.zeros(len(cases))
    if gamed is not None:
        for row, case in enumerate(cases):
            if case.index not in gamed.difficulty:
                raise DataError(
                    f"df_gamed.csv has no instruction {case.index}: it belongs to {len(gamed.difficulty)} published "
                    "instructions; remove it to use other instructions"
                )
            difficulty[row] = gamed.difficulty[case.index]
    scored = np.array([case.share is not None for case in cases])
    intercept = np.ones(len(cases))
    features = np.column_stack([np.tanh(lengths / spread), difficulty, intercept])[scored]
    equal_length = np.column_stack([np.zeros(len(cases)), difficulty, intercept])
    shares = np.array([case.share for case in cases if case.share is not None])
    gamed_weights = np.zeros(0)
    if gamed is None:
        features, equal_length = features[:, [0, 2]], equal_length[:, [0, 2]]
    else:
        rows = np.array([row for row in gamed.rows if not math.isnan(row[2])])
        gamed_features = np.column_stack([np.tanh(rows[:, 0]), rows[:, 1], np.zeros(len(rows))])
        features, shares = np.concatenate([gamed_features, features]), np.concatenate([rows[:, 2], shares])
        gamed_weights = np.full(len(rows), GAMED_WEIGHT)
    regression = ShareRegression(features, shares)
    strength = regression.select_strength(np.concatenate([gamed_weights, np.ones(len(shares) - len(gamed_weights))]))

    def win_rate(counts: "np.ndarray") -> float:
        """Fit with each case repeated `counts` times, and predict at equal lengths."""
        model = regression.fit(np.concatenate([gamed_weights, counts[scored]]), strength)
        return 100 * float(np.average(model.predict_proba(equal_length)[:, 1], weights=counts))

    random = np.random.default_rng(options.seed)
    uniform = np.full(len(cases), 1 / len(cases))
    refits = [win_rate(random.multinomial(len(cases), uniform)) for _ in range(min(REFITS, options.resamples))]
    # 100 refits are too few for their own quantiles. Resamples of n cases underestimate the variance by (n - 1) / n.
    error = float(np.std(refits, ddof=1)) * math.sqrt(len(cases) / (len(cases) - 1))
    margin = float(student_t.ppf((1 + options.confidence) / 2, len(cases) - 1)) * error
    value = win_rate(np.ones(len(cases)))
    return Estimate(value, max(0.0, value - margin), min(100.0, value + margin), len(cases))


class ShareRegression:
    """Logistic regression of shares between 0 and 1: each case is both a win and a loss, weighted by its share."""

    def __init__(self, features: "np.ndarray", shares: "np.ndarray") -> None:
        self._features, self._shares = features, shares

    def fit(self, weights: "np.ndarray", strength: float) -> Any:
        """Return the fitted scikit-learn model for the given case weights."""
        features, labels, sample_weight = self._wins_and_losses(weights)
        used = sample_weight > 0  # the other rows only cost time
        return _logistic_regression(strength).fit(features[used], labels[used], sample_weight=sample_weight[used])

    def select_strength(self, weights: "np.ndarray") -> float:
        """Return the inverse penalty with the lowest weighted log loss in cross-validation."""
        import numpy as np
        from sklearn.model_selection import GroupKFold  # type: ignore[import-untyped]

        strengths = np.logspace(-4, 4, STRENGTHS)
        features, labels, sample_weight = self._wins_and_losses(weights)
        cases = np.tile(np.arange(len(self._shares)), 2)
        losses = np.zeros(STRENGTHS)
        for train, test in GroupKFold(n_splits=FOLDS).split(features, labels, cases):
            for index, strength in enumerate(strengths):
                model = _logistic_regression(strength)
                model.fit(features[train], labels[train], sample_weight=sample_weight[train])
                # sklearn.metrics.log_loss takes class labels only, not shares.
                p = np.clip(model.predict_proba(features[test])[:, 1], 1e-15, 1 - 1e-15)
                shares = self._shares[cases[test]]
                losses[index] -= np.mean(weights[cases[test]] * (shares * np.log(p) + (1 - shares) * np.log(1 - p)))
        return float(strengths[losses.argmin()])

    def _wins_and_losses(self, weights: "np.ndarray") -> "tuple[np.ndarray, np.ndarray, np.ndarray]":
        """Return features, labels and sample weights, wins first."""
        import numpy as np

        labels = np.repeat([1, 0], len(self._shares))
        sample_weight = np.concatenate([self._shares * weights, (1 - self._shares) * weights])
        return np.concatenate([self._features, self._features]), labels, sample_weight


def _logistic_regression(strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

    # l1_ratio=1 is an L1 penalty; `penalty="l1"` is deprecated since scikit-learn 1.8.
    return LogisticRegression(C=strength, l1_ratio=1.0, solver="liblinear", fit_intercept=False, random_state=SEED)
