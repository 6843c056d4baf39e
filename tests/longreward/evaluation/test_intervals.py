"""Simulated coverage of the intervals, and intervals with values worked out by hand."""

import numpy as np
import pytest
from scipy import stats

from longreward.evaluation.intervals import UNBOUNDED, Bounds, document_values, limit_draws, limits
from longreward.evaluation.statistics import IntervalOptions, mean, mean_difference, stratified_mean

SAMPLES = 3000
INTERVALS = IntervalOptions(resamples=2000)
SHARE = (0.0, 1.0)


def coverage(
    values: np.ndarray, truth: float, bounds: Bounds = UNBOUNDED, *, paired: bool = False, observed_range: float = 0.0
) -> float:
    """Return the share of samples (rows) whose interval contains the true value."""
    draws = limit_draws(values, bounds=bounds, mirrored=paired, observed_range=observed_range, resamples=1000, seed=0)
    low, high = limits(*draws, confidence=0.95, bounds=bounds)
    return float(np.mean((low <= truth + 1e-9) & (truth - 1e-9 <= high)))


MEANS = {
    "normal": (lambda r, shape: r.normal(size=shape), 0.0, UNBOUNDED),
    "exponential": (lambda r, shape: r.exponential(size=shape), 1.0, UNBOUNDED),
    "lognormal": (lambda r, shape: r.lognormal(size=shape), np.exp(0.5), UNBOUNDED),
    "lognormal, skewed to the left": (lambda r, shape: 10 - r.lognormal(size=shape), 10 - np.exp(0.5), UNBOUNDED),
    "skewed share": (lambda r, shape: r.beta(0.5, 3, size=shape), 0.5 / 3.5, SHARE),
    "half correct": (lambda r, shape: r.binomial(1, 0.5, size=shape) * 1.0, 0.5, SHARE),
    "one in five correct": (lambda r, shape: r.binomial(1, 0.2, size=shape) * 1.0, 0.2, SHARE),
    "nearly all correct": (lambda r, shape: r.binomial(1, 0.95, size=shape) * 1.0, 0.95, SHARE),
}


@pytest.mark.parametrize("documents", [6, 10, 40])
@pytest.mark.parametrize("case", MEANS)
def test_mean_intervals_have_nominal_coverage(case: str, documents: int) -> None:
    draw, truth, bounds = MEANS[case]
    values = draw(np.random.default_rng(documents), (SAMPLES, documents))
    assert coverage(values, truth, bounds) >= 0.94


def draw_changes(up: float, down: float):
    return lambda r, shape: r.choice([1.0, 0.0, -1.0], p=[up, 1 - up - down, down], size=shape)


DIFFERENCES = {  # of one answer a document; the range is that of single answers
    "normal": (lambda r, shape: r.normal(size=shape), 0.0, UNBOUNDED, 3.0),
    "skewed": (lambda r, shape: r.lognormal(size=shape) - np.exp(0.5), 0.0, UNBOUNDED, 3.0),
    "mostly zero": (lambda r, shape: r.normal(0.2, 1, shape) * r.binomial(1, 0.3, shape), 0.06, UNBOUNDED, 3.0),
    "few better": (draw_changes(0.1, 0.0), 0.1, (-1.0, 1.0), 1.0),
    "few better, few worse": (draw_changes(0.05, 0.05), 0.0, (-1.0, 1.0), 1.0),
    "many better, some worse": (draw_changes(0.4, 0.15), 0.25, (-1.0, 1.0), 1.0),
    "nearly all better": (draw_changes(0.9, 0.0), 0.9, (-1.0, 1.0), 1.0),
}


@pytest.mark.parametrize("documents", [6, 10, 40])
@pytest.mark.parametrize("case", DIFFERENCES)
def test_paired_difference_intervals_have_nominal_coverage(case: str, documents: int) -> None:
    draw, truth, bounds, observed_range = DIFFERENCES[case]
    values = draw(np.random.default_rng(documents), (SAMPLES, documents))
    assert coverage(values, truth, bounds, paired=True, observed_range=observed_range) >= 0.94


CLUSTERED = {
    "normal": (lambda r, effect: effect + r.normal(size=effect.shape), 0.0, UNBOUNDED),
    "lognormal": (lambda r, effect: np.exp(0.7 * effect + 0.7 * r.normal(size=effect.shape)), np.exp(0.49), UNBOUNDED),
    "binary": (
        lambda r, effect: (effect + r.normal(size=effect.shape) > -0.8) * 1.0,
        stats.norm.cdf(0.8 / 2**0.5),
        SHARE,
    ),
}


@pytest.mark.parametrize("documents", [6, 10, 40])
@pytest.mark.parametrize("case", CLUSTERED)
def test_intervals_have_coverage_with_unequal_documents(case: str, documents: int) -> None:
    draw, truth, bounds = CLUSTERED[case]
    random = np.random.default_rng(documents)
    counts = random.integers(1, 9, size=(SAMPLES, documents))
    effect, totals = random.normal(size=counts.shape), np.zeros(counts.shape)
    for answer in range(8):
        totals += draw(random, effect) * (counts > answer)
    assert coverage(document_values(totals, counts), truth, bounds) >= 0.94


def test_interval_of_binary_values_is_clopper_pearson() -> None:
    estimate = mean([(f"d{n}", float(n < 3)) for n in range(12)], IntervalOptions(resamples=50_000))
    exact = stats.binomtest(3, 12).proportion_ci(0.95, method="exact")
    assert estimate is not None
    assert (estimate.low, estimate.high) == pytest.approx((exact.low, exact.high), abs=0.005)


def test_interval_of_six_correct_answers_extends_below_one() -> None:
    estimate = mean([(f"d{n}", 1.0) for n in range(6)], INTERVALS)
    assert estimate is not None
    assert (estimate.value, estimate.high) == (1.0, 1.0)
    assert estimate.low == pytest.approx(0.025 ** (1 / 6), abs=0.02)  # of Clopper and Pearson
    ten = mean([(f"d{n}", 10.0) for n in range(6)], INTERVALS, bounds=(0.0, 10.0))
    assert ten is not None
    assert (ten.low, ten.high) == (pytest.approx(10 * estimate.low), 10.0)


def test_six_equal_differences_exclude_zero_but_five_do_not() -> None:
    def gain(documents: int):
        first = [(f"d{n}", 0.1 * n) for n in range(documents)]
        estimate = mean_difference(first, [(name, value + 0.2) for name, value in first], INTERVALS)
        assert estimate is not None
        assert estimate.value == pytest.approx(0.2)
        return estimate

    assert (gain(6).excludes_zero, gain(5).excludes_zero) == (True, False)
    assert 0 < gain(6).low < 0.05
    assert (gain(6).p, gain(5).p) == (2 / 64, 2 / 32)


def test_interval_of_zero_difference_is_clopper_pearson() -> None:
    values = [(f"d{n}", float(n % 3 > 0)) for n in range(40)]
    estimate = mean_difference(values, values, INTERVALS)
    assert estimate is not None
    assert (estimate.value, estimate.p) == (0.0, 1.0)
    limit = 1 - 0.025 ** (1 / 40)
    assert (estimate.low, estimate.high) == pytest.approx((-limit, limit), abs=0.01)


def test_higher_confidence_gives_wider_interval() -> None:
    observed = [(f"d{n}", float(n * n)) for n in range(9)]
    widths = []
    for confidence in (0.8, 0.95, 0.99):
        estimate = mean(observed, IntervalOptions(2000, confidence, 0))
        assert estimate is not None
        widths.append(estimate.high - estimate.low)
    assert widths[0] * 1.2 < widths[1] < widths[2] / 1.1
    assert mean_difference(observed, observed[:5], IntervalOptions(200, 0.8, 0)).level == pytest.approx(0.2)


def test_document_counts_once_for_any_number_of_answers() -> None:
    once = [(f"d{n}", float(n)) for n in range(7)]
    often = [answer for answer in once for _ in range(5)]
    assert mean(once, INTERVALS) == mean(often, INTERVALS)


def test_influence_of_document_grows_with_answers() -> None:
    # Three answers of 1 and one of 0: the mean is 3/4, and the first document weighs three times as much as the second.
    values = document_values(np.array([3.0, 0.0]), np.array([3.0, 1.0]))
    assert values.tolist() == [0.75 + 2 * 3 * 0.25 / 4, 0.75 - 2 * 1 * 0.75 / 4]
    assert values.mean() == 0.75


def test_large_document_has_more_weight_in_mean() -> None:
    estimate = mean([("large", 1.0)] * 3 + [("small", 0.0), ("other", 0.0)], INTERVALS)
    assert estimate is not None
    assert (estimate.value, estimate.documents) == (0.6, 3)


def test_mean_of_strata_has_interval_of_independent_samples() -> None:
    small, large = [(f"a{n}", float(n % 2)) for n in range(8)], [(f"b{n}", float(n % 4 == 0)) for n in range(400)]
    single = mean(small, INTERVALS)
    both = stratified_mean({"small": small, "large": large}, {"small": 0.5, "large": 0.5}, INTERVALS)
    assert single is not None
    assert both is not None
    assert (both.value, both.documents) == (0.375, 408)
    assert both.high - both.low == pytest.approx(
        (single.high - single.low) / 2, rel=0.1
    )  # the large stratum adds little
    assert stratified_mean({"small": small, "empty": []}, {"small": 0.5, "empty": 0.5}, INTERVALS) is None


def test_samples_without_common_documents_unpaired() -> None:
    random = np.random.default_rng(5)
    misses = 0
    for _ in range(300):
        first = [(f"a{n}", value) for n, value in enumerate(random.normal(size=7))]
        second = [(f"b{n}", value) for n, value in enumerate(random.normal(1.5, 2.0, size=11))]
        estimate = mean_difference(first, second, IntervalOptions(400, 0.95, 0))
        assert estimate is not None
        misses += not estimate.low <= 1.5 <= estimate.high
    assert misses <= 15


def test_strata_are_independent() -> None:
    first, second = ([(f"{name}{n}", float(n % 5)) for n in range(60)] for name in "ab")
    single, both = mean(first, INTERVALS), stratified_mean({"a": first, "b": second}, {"a": 0.5, "b": 0.5}, INTERVALS)
    assert single is not None
    assert both is not None
    assert both.high - both.low == pytest.approx((single.high - single.low) / 2**0.5, rel=0.15)


def test_other_seed_gives_other_weights() -> None:
    observed = [(f"d{n}", float(n * n)) for n in range(9)]
    first, repeated, second = (mean(observed, IntervalOptions(200, 0.95, seed)) for seed in (0, 0, 1))
    assert first == repeated
    assert first != second


def test_unpaired_difference_includes_uncertainty_of_both_samples() -> None:
    wrong, right = [(f"a{n}", 0.0) for n in range(6)], [(f"b{n}", 1.0) for n in range(6)]
    estimate = mean_difference(wrong, right, INTERVALS)
    assert estimate is not None
    assert (estimate.value, estimate.high) == (1.0, 1.0)
    assert 0 < estimate.low < 0.5  # one sample alone leaves 0.54


def test_equal_documents_use_range_of_observations() -> None:
    first = [(f"d{n}", 5.0) for n in range(6) for _ in range(2)]
    second = [(f"d{n}", value) for n in range(6) for value in (4.0, 6.0)]
    estimate = mean_difference(first, second, INTERVALS)
    assert estimate is not None
    assert estimate.low < -0.5 < 0.5 < estimate.high
