"""The points of DVC's plots of the benchmarks."""

from longreward.benchmarks.report import MODEL_LABELS, BenchmarkReport

Row = dict[str, str | float]
BARS = ("bar", "value")
POINTS = ("benchmark", "model", "tokens", "score")


def score_points(report: BenchmarkReport) -> list[Row]:
    """Return one bar per metric and model: {"bar": "mt_bench score DPO", "value": 6.1}."""
    return [
        {"bar": f"{result.name} {metric.name} {MODEL_LABELS.get(role, role)}", "value": metric.estimate.value}
        for result in report.results
        for role, summary in result.summaries.items()
        for metric in summary.metrics
        if metric.estimate is not None and metric.is_score
    ]


def length_points(report: BenchmarkReport) -> list[Row]:
    """Return one point per case and model, or per length and model: its score and the tokens of its context."""
    return [
        {
            "benchmark": result.name,
            "model": MODEL_LABELS.get(role, role),
            "tokens": tokens,
            "score": score,
        }
        for result in report.results
        for role, summary in result.summaries.items()
        for tokens, score in summary.curve or ((case.context_tokens, case.score) for case in summary.case_scores)
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
