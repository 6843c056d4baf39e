"""Figures of the benchmarks for MLflow, and the points of DVC's plots."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from longreward.benchmarks.report import MODEL_LABELS, BenchmarkReport
from longreward.benchmarks.types import Summary
from longreward.evaluation import charts
from longreward.evaluation.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, str | float]
BARS = ("bar", "value")
POINTS = ("benchmark", "model", "tokens", "score")


def figures(report: BenchmarkReport) -> "dict[str, Figure]":
    """Return figures by file name: categories, sets, ratings, and score against the length of the context."""
    by_name: dict[str, Figure] = {}
    for result in report.results:
        name = result.name
        summaries = {MODEL_LABELS.get(role, role): summary for role, summary in result.summaries.items()}
        categories = _metric_group(summaries, "category")
        if all(len(values) > 2 for values in categories.values()):
            by_name[f"{name}-categories.svg"] = charts.radar(f"{name} by category", categories, top=result.max_score)
        sets = _metric_group(summaries, "set")
        if any(sets.values()):
            by_name[f"{name}-sets.svg"] = charts.bars(f"{name} by set", {"judged": sets}, top=result.max_score)
        ratings = {model: summary.ratings for model, summary in summaries.items()}
        if any(ratings.values()):
            by_name[f"{name}-ratings.svg"] = charts.histograms(f"{name}: the judge's ratings", {"": ratings}, "rating")
        points = {
            model: [(case.context_tokens, case.score) for case in summary.case_scores]
            for model, summary in summaries.items()
        }
        if len({tokens for pairs in points.values() for tokens, _ in pairs}) > 1:
            title = f"{name}: score against the length of the context"
            by_name[f"{name}-length.svg"] = charts.scatter(title, points, top=result.max_score, x_label="tokens")
    return by_name


def score_points(report: BenchmarkReport) -> list[Row]:
    """Return one bar per metric and model: {"bar": "mt_bench score DPO", "value": 6.1}."""
    return [
        {"bar": f"{result.name} {metric.name} {MODEL_LABELS.get(role, role)}", "value": metric.strict.value}
        for result in report.results
        for role, summary in result.summaries.items()
        for metric in summary.metrics
        if metric.strict is not None
    ]


def length_points(report: BenchmarkReport) -> list[Row]:
    """Return one point per case and model: its score and the tokens of its context."""
    return [
        {
            "benchmark": result.name,
            "model": MODEL_LABELS.get(role, role),
            "tokens": case.context_tokens,
            "score": case.score,
        }
        for result in report.results
        for role, summary in result.summaries.items()
        for case in summary.case_scores
    ]


def rating_points(report: BenchmarkReport) -> list[Row]:
    """Return how often the judge gave each rating."""
    return [
        {
            "bar": f"{result.name} {rating:g} {MODEL_LABELS.get(role, role)}",
            "value": float(summary.ratings.count(rating)),
        }
        for result in report.results
        for role, summary in result.summaries.items()
        for rating in sorted(set(summary.ratings))
    ]


def _metric_group(summaries: Mapping[str, Summary], group: str) -> dict[str, dict[str, Estimate]]:
    """Return the metrics named `<group>/<name>` by model and name."""
    return {
        model: {
            metric.name.removeprefix(f"{group}/"): metric.strict
            for metric in summary.metrics
            if metric.strict is not None and metric.name.startswith(f"{group}/") and metric.name.count("/") == 1
        }
        for model, summary in summaries.items()
    }
