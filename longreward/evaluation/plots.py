"""Figures of an evaluation for MLflow, and the points of DVC's plots."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from longreward.evaluation import charts
from longreward.evaluation.config import GOLD_MEASURES, JUDGED_MEASURES, Measure
from longreward.evaluation.measures import AnswerMeasures
from longreward.evaluation.report import Evaluation
from longreward.evaluation.statistics import Estimate
from longreward.records import Role

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MODEL_LABELS: dict[Role, str] = {"sft": "SFT", "dpo": "DPO"}


def figures(evaluation: Evaluation, measured: Iterable[AnswerMeasures]) -> "dict[str, Figure]":
    """Return figures by file name: rewards.svg, gold.svg if there are gold measures, and lengths.svg."""
    by_name = {"rewards.svg": _bars(evaluation, JUDGED_MEASURES, "Judge scores, SFT and DPO", top=10)}
    gold: tuple[Measure, ...] = (*GOLD_MEASURES, "short")
    if any(measure in estimates for estimates in evaluation.means.values() for measure in gold):
        by_name["gold.svg"] = _bars(evaluation, gold, "Gold measures, SFT and DPO", top=1)
    lengths: dict[str, dict[str, list[float]]] = {}
    for answer in measured:
        if "tokens" in answer.values:
            by_model = lengths.setdefault(answer.decoding, {label: [] for label in MODEL_LABELS.values()})
            by_model[MODEL_LABELS[answer.role]].append(answer.values["tokens"])
    if lengths:
        by_name["lengths.svg"] = charts.draw_histograms("Answer lengths, SFT and DPO", lengths, "tokens")
    return by_name


def plot_points(evaluation: Evaluation, measures: Sequence[Measure]) -> list[dict[str, str | float]]:
    """Return one bar per mean: {"bar": "greedy exact DPO", "value": 0.52}."""
    return [
        {"bar": f"{decoding} {measure} {MODEL_LABELS[role]}", "value": estimates[measure].value}
        for measure in measures
        for (role, decoding), estimates in sorted(evaluation.means.items(), key=lambda item: item[0][1])
        if measure in estimates
    ]


def _bars(evaluation: Evaluation, measures: Sequence[Measure], title: str, *, top: float) -> "Figure":
    panels: dict[str, dict[str, dict[str, Estimate]]] = {}
    for (role, decoding), estimates in evaluation.means.items():
        values: dict[str, Estimate] = {measure: estimates[measure] for measure in measures if measure in estimates}
        panels.setdefault(decoding, {})[MODEL_LABELS[role]] = values
    return charts.draw_bars(title, panels, top=top)
