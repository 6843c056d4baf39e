"""A logistic model of shares between 0 and 1, with an L1 penalty that is chosen in folds: the library `alpaca_eval`'s.

Each case stands in it twice, as a win and as a loss, weighted by its share.
"""

from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

STRENGTHS = 10  # inverse penalties from 1e-4 to 1e4, evenly on their logarithm
FOLDS = 5
SEED = 123


class Fit:
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
