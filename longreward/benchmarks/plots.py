"""Benchmarks in pictures, and as the points of DVC's plots: categories, sets, context length, ratings."""

from collections.abc import Mapping

from longreward.benchmarks.report import MODELS, BenchmarkReport
from longreward.benchmarks.types import Summary
from longreward.evaluation import charts
from longreward.evaluation.statistics import Estimate

Row = dict[str, str | float]
BARS = ("bar", "value")
POINTS = ("benchmark", "model", "tokens", "score")


def figures(report: BenchmarkReport) -> dict[str, str]:
    """File names and their SVG text."""
    drawn: dict[str, str] = {}
    for one in report.benchmarks:
        name, by_model = one.name, {MODELS.get(role, role): summary for role, summary in one.summaries.items()}
        categories = _of_kind(by_model, "category")
        if all(len(groups) > 2 for groups in categories.values()):
            drawn[f"{name}-categories.svg"] = charts.radar(f"{name} by category", categories, top=one.top)
        sets = _of_kind(by_model, "set")
        if any(sets.values()):
            drawn[f"{name}-sets.svg"] = charts.bars(f"{name} by set", [charts.Bars("judged", sets)], top=one.top)
        ratings = {model: summary.ratings for model, summary in by_model.items()}
        if any(ratings.values()):
            panels = [charts.Histogram("ratings as the judge gave them", ratings)]
            drawn[f"{name}-ratings.svg"] = charts.histograms(f"{name}: ratings", panels, unit="rating")
        points = {model: [(v.context_tokens, v.value) for v in s.values] for model, s in by_model.items()}
        if len({tokens for of in points.values() for tokens, _ in of}) > 1:
            drawn[f"{name}-length.svg"] = charts.scatter(
                f"{name}: score against the context's length", points, top=one.top, unit="tokens"
            )
    return drawn


def score_points(report: BenchmarkReport) -> list[Row]:
    """One bar a figure and model: {"bar": "mt_bench score DPO", "value": 6.1}."""
    return [
        {"bar": f"{one.name} {figure.name} {MODELS.get(role, role)}", "value": figure.strict.value}
        for one in report.benchmarks
        for role, summary in one.summaries.items()
        for figure in summary.figures
        if figure.strict is not None
    ]


def length_points(report: BenchmarkReport) -> list[Row]:
    """One point a case and model: score against the context's tokens."""
    return [
        {"benchmark": one.name, "model": MODELS.get(role, role), "tokens": value.context_tokens, "score": value.value}
        for one in report.benchmarks
        for role, summary in one.summaries.items()
        for value in summary.values
    ]


def rating_points(report: BenchmarkReport) -> list[Row]:
    """How often each rating was given."""
    rows: list[Row] = []
    for one in report.benchmarks:
        for role, summary in one.summaries.items():
            for rating in sorted(set(summary.ratings)):
                bar = f"{one.name} {rating:g} {MODELS.get(role, role)}"
                rows.append({"bar": bar, "value": float(summary.ratings.count(rating))})
    return rows


def _of_kind(by_model: Mapping[str, Summary], kind: str) -> dict[str, dict[str, Estimate]]:
    """Model -> group -> estimate, of the figures that are named `kind/group`."""
    return {
        model: {
            figure.name.removeprefix(f"{kind}/"): figure.strict
            for figure in summary.figures
            if figure.strict is not None and figure.name.startswith(f"{kind}/") and figure.name.count("/") == 1
        }
        for model, summary in by_model.items()
    }
