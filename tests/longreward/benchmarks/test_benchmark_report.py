import pytest

from longreward.benchmarks.config import BenchmarkConfig
from longreward.benchmarks.metrics import macro_mean, verdict_metric
from longreward.benchmarks.plots import length_points, rating_points, score_points
from longreward.benchmarks.report import BenchmarkReport, BenchmarkResult, markdown
from longreward.benchmarks.suite import judge_config
from longreward.benchmarks.types import CaseScore, JudgeOptions, Metric, Summary, Verdict
from longreward.errors import ConfigError
from longreward.evaluation.statistics import Estimate, IntervalOptions
from longreward.judge import JudgeConfig

INTERVALS = IntervalOptions(resamples=200)


def make_verdict(case: str, value: float | None, part: str = "turn 1") -> Verdict:
    reason = None if value is not None else "no rating"
    return Verdict(case, part, "t", "", "prompt", "said", value, reason)


def make_estimate(value: float) -> Estimate:
    return Estimate(value, value - 1, value + 1, 8)


def make_summary(*values: float, sets: bool = False) -> Summary:
    kind = "set" if sets else "category"
    groups = tuple(Metric(f"{kind}/{g}", make_estimate(v), 1, 0) for g, v in zip("abc", values, strict=True))
    cases = tuple(CaseScore(str(n), "a", 100 * (n + 1), value) for n, value in enumerate(values * 3))
    score = sum(values) / 3
    headline = Metric("score", make_estimate(score), 9, 1)
    return Summary("some_bench", (headline, *groups), cases, values)


def make_report(**changes: bool) -> BenchmarkReport:
    models = {"sft": make_summary(2.0, 4.0, 6.0, **changes), "dpo": make_summary(4.0, 6.0, 8.0, **changes)}
    return BenchmarkReport(
        [BenchmarkResult("some_bench", models, max_score=10, official=False, judge="a judge")], INTERVALS
    )


def test_values_averaged_over_readable_verdicts():
    verdicts = [make_verdict("1", 7.0), make_verdict("1", 0.5, "turn 2"), make_verdict("2", None)]
    metric = verdict_metric("score", verdicts, INTERVALS, scale=10)
    assert (metric.estimate.value, metric.cases, metric.unscored) == (37.5, 2, 1)


def test_mean_of_means_weights_sets_equally():
    groups = {"large": [("1", 1.0), ("2", 1.0), ("3", 0.0), ("4", 0.0)], "small": [("5", 1.0)]}
    estimate = macro_mean(groups, INTERVALS)
    assert estimate.value == 0.75
    assert estimate.documents == 5
    assert estimate.low < 0.4  # a set of one case has a wide interval
    assert 0.9 < estimate.high <= 1.0
    assert macro_mean({"full": [("1", 1.0)], "empty": []}, INTERVALS) is None


def test_models_have_same_metric_names():
    report = make_report()
    assert report.metrics("sft").keys() == report.metrics("dpo").keys()
    assert report.metrics("dpo")["some_bench/score"] == 6.0
    assert report.metrics("dpo")["some_bench/score/unscored"] == 1
    assert report.headline()["some_bench/difference"] == 2.0


def test_report_warns_about_scores_on_builtin_cases():
    text = markdown(make_report())
    assert "DPO minus SFT, paired by case: +2.00 [+0." in text
    assert ", p 0.004. Detectable with a power of 80 %: " in text  # p: 2 of 2 ** 9 swaps
    assert "not comparable to published ones" in text
    assert "| score | 9 | 4.00 [3.00, 5.00] | 1 | 6.00 [5.00, 7.00] | 1 |" in text


def test_plot_points_include_model():
    assert {"bar": "some_bench score DPO", "value": 6.0} in score_points(make_report())
    assert {"bar": "some_bench 4 SFT", "value": 1.0} in rating_points(make_report())
    assert {"benchmark": "some_bench", "model": "SFT", "tokens": 100, "score": 2.0} in length_points(make_report())


def test_judge_settings_follow_benchmark_protocol():
    judge = JudgeConfig(kind="openai", model="gpt-4o-mini", dimensions={"faithfulness": {"model": "other"}})
    config = BenchmarkConfig(judge={"model": "gpt-4o-2024-05-13"})
    settings = judge_config(config, judge, JudgeOptions(temperature=0.0, retry_temperature=0.5, max_attempts=3))
    assert (settings.model, settings.first_temperature, settings.retry_temperature, settings.max_attempts) == (
        "gpt-4o-2024-05-13",
        0,
        0.5,
        3,
    )
    assert settings.dimensions == {}
    with pytest.raises(ConfigError, match="did you mean model"):
        judge_config(BenchmarkConfig(judge={"modell": "x"}), judge, JudgeOptions())


def test_gains_significant_after_correction_for_number_of_benchmarks():
    def make_result(name: str, *gains: float) -> BenchmarkResult:
        sft = tuple(CaseScore(str(n), "a", 100, 2.0 + n % 3) for n in range(len(gains)))
        dpo = tuple(CaseScore(str(n), "a", 100, 2.0 + n % 3 + gain) for n, gain in enumerate(gains))
        models = {role: Summary(name, (), values, ()) for role, values in (("sft", sft), ("dpo", dpo))}
        return BenchmarkResult(name, models, max_score=10, official=True, judge="a judge")

    # p is 2 / 2 ** 7 for the first, and 1 for the second.
    single = BenchmarkReport([make_result("one", *[0.5] * 7)], INTERVALS)
    assert (single.differences()["one"].p, single.differences()["one"].is_shown) == (2 / 2**7, True)
    several = BenchmarkReport(
        [make_result("flat", 0.5, -0.5, 0.25), *(make_result(name, *[0.5] * 7) for name in "abc")], INTERVALS
    )
    assert [gain.p_corrected for gain in several.differences().values()] == [1.0, *[4 * 2 / 2**7] * 3]
    assert not any(gain.is_shown for gain in several.differences().values())
    assert ", p 0.016." in markdown(single)
    assert markdown(several).count(" (not significant).") == 4


def test_interval_of_all_correct_answers_extends_below_one():
    metric = verdict_metric(
        "score", [make_verdict(str(n), 1.0) for n in range(12)], INTERVALS, scale=100, bounds=(0.0, 100.0)
    )
    assert (metric.estimate.value, metric.estimate.high) == (100.0, 100.0)
    assert metric.estimate.low == pytest.approx(100 * 0.025 ** (1 / 12), abs=5)


def test_set_weights_equal_interval_weights():
    wide, narrow = [(f"w{n}", n % 2 * 100.0) for n in range(8)], [(f"n{n}", 50.0 + n % 2) for n in range(8)]
    groups = {"wide": wide, "narrow": narrow}
    mainly_wide, mainly_narrow = (
        macro_mean(groups, INTERVALS, weights={"wide": weight, "narrow": 1 - weight}, bounds=(0.0, 100.0))
        for weight in (0.9, 0.1)
    )
    assert (mainly_wide.value, mainly_narrow.value) == pytest.approx((50.05, 50.45))
    assert mainly_wide.high - mainly_wide.low > 5 * (mainly_narrow.high - mainly_narrow.low)
