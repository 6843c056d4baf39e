"""Permutation tests against scipy's, their errors in simulation, and Holm's correction."""

import numpy as np
import pytest
from scipy import stats

from longreward.evaluation.significance import holm, least_documents, paired_p_value, unpaired_p_value
from longreward.evaluation.statistics import DifferenceEstimate, IntervalOptions, holm_corrected, mean_difference

INTERVALS = IntervalOptions(resamples=500)


def mean_gap(first, second, axis=-1):
    return second.mean(axis=axis) - first.mean(axis=axis)


@pytest.mark.parametrize("documents", [6, 9, 17])
def test_paired_p_value_equals_scipy(documents: int) -> None:
    random = np.random.default_rng(documents)
    first = random.lognormal(size=documents)
    second = first + random.normal(0.4, 0.6, size=documents)
    expected = stats.permutation_test(
        (first, second), mean_gap, permutation_type="samples", vectorized=True, n_resamples=20_000, rng=1
    )
    ones = np.ones(documents)
    tolerance = 0.006 if documents > 14 else 1e-12  # beyond 14, both try a sample of the swaps
    assert paired_p_value((first, ones), (second, ones)) == pytest.approx(expected.pvalue, abs=tolerance)


def test_unpaired_p_value_equals_scipy() -> None:
    random = np.random.default_rng(3)
    first, second = random.normal(size=5), random.normal(1.0, 1.0, size=9)
    # By the size of the difference: scipy's own two-sided test doubles the smaller side.
    expected = stats.permutation_test(
        (first, second),
        lambda *samples, axis: abs(mean_gap(*samples, axis=axis)),
        vectorized=True,
        alternative="greater",
    )
    p_value = unpaired_p_value((first, np.ones(5)), (second, np.ones(9)))
    assert p_value == pytest.approx(expected.pvalue, abs=0.012)


def test_answers_of_document_swapped_together() -> None:
    # Two answers of each model to d0, one to d1, none of the first model to d2: with all swaps there are 8.
    first, second = (np.array([0.0, 0.0, 0.0]), np.array([2, 1, 0])), (np.array([2.0, 1.0, 1.0]), np.array([2, 1, 1]))
    # The means are 0 and 1. Only the division as observed and its mirror image are that far apart.
    assert paired_p_value(first, second) == 2 / 8


def test_equal_models_are_rarely_significant() -> None:
    random = np.random.default_rng(11)
    for documents, skewed in ((6, False), (10, True), (20, False)):
        false_positives = 0
        for _ in range(400):
            hard = random.normal(size=documents)  # a document is hard for both
            draw = random.lognormal if skewed else random.normal
            samples = [[(f"d{n}", hard[n] + value) for n, value in enumerate(draw(size=documents))] for _ in range(2)]
            difference = mean_difference(*samples, INTERVALS)
            assert difference is not None
            false_positives += difference.is_significant
        assert false_positives / 400 <= 0.05


def test_report_on_equal_models_rarely_marks_significance() -> None:
    random = np.random.default_rng(12)
    any_uncorrected = any_corrected = 0
    for _ in range(120):
        differences = []
        for _ in range(9):
            samples = [[(f"d{n}", value) for n, value in enumerate(random.normal(size=12))] for _ in range(2)]
            difference = mean_difference(*samples, IntervalOptions(resamples=100))
            assert difference is not None
            differences.append(difference)
        any_uncorrected += any(difference.p <= 0.05 for difference in differences)
        any_corrected += any(difference.p_corrected <= 0.05 for difference in holm_corrected(differences))
    assert any_uncorrected > 0.25 * 120
    assert any_corrected <= 0.07 * 120


def test_large_effect_is_significant_after_correction() -> None:
    random = np.random.default_rng(13)
    plain = [(f"d{n}", value) for n, value in enumerate(random.normal(size=30))]
    better = [
        (name, value + 1.0 + 0.5 * noise) for (name, value), noise in zip(plain, random.normal(size=30), strict=True)
    ]
    equal = [(name, value + 0.5 * noise) for (name, value), noise in zip(plain, random.normal(size=30), strict=True)]
    differences = [mean_difference(plain, second, INTERVALS) for second in (better, *[equal] * 30)]
    assert [difference.is_shown for difference in holm_corrected(differences)][:2] == [True, False]


def test_holm_corrects_stepwise_and_keeps_order() -> None:
    # 0.005 x 4, 0.01 x 3, then 0.03 x 2 and no less than that for 0.04.
    assert holm([0.04, 0.005, 0.03, 0.01]) == pytest.approx([0.06, 0.02, 0.06, 0.03])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_min_documents_depend_on_number_of_comparisons() -> None:
    for tests in (1, 2, 33):
        documents = least_documents(0.05, tests)
        assert tests * 2.0 ** (1 - documents) <= 0.05 < tests * 2.0 ** (2 - documents)


def test_sampled_p_value_is_above_0() -> None:
    ones = np.ones(40)
    assert paired_p_value((0 * ones, ones), (ones, ones)) == 1 / 20_001
    assert unpaired_p_value((0 * ones, ones), (ones, ones)) == 1 / 20_001


@pytest.mark.parametrize("paired", [True, False])
def test_detectable_difference_is_shown_in_four_of_five_samples(paired: bool) -> None:
    generator = np.random.default_rng(0)
    options = IntervalOptions(resamples=100, confidence=0.95)

    def compare(effect: float) -> DifferenceEstimate:
        names = [[f"document {side * (not paired)} {number}" for number in range(50)] for side in (0, 1)]
        values = [generator.normal(side * effect, 1.0, 50) for side in (0, 1)]
        estimate = mean_difference(
            *(list(zip(*side, strict=True)) for side in zip(names, values, strict=True)), options
        )
        assert estimate is not None
        return estimate

    detectable = float(np.mean([compare(0.0).detectable for _ in range(20)]))
    assert detectable == pytest.approx((1.96 + 0.84) * (2 / 50) ** 0.5, rel=0.05)
    shown = np.mean([compare(detectable).p <= 0.05 for _ in range(200)])
    assert 0.7 < shown < 0.9
