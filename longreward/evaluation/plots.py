"""An evaluation in pictures, and as the points of DVC's plots: scores by dimension and lengths, before and after."""

from collections.abc import Iterable, Sequence

from longreward.evaluation import charts
from longreward.evaluation.config import GOLD_MEASURES, JUDGED_MEASURES, Measure
from longreward.evaluation.measures import AnswerMeasures
from longreward.evaluation.report import Evaluation
from longreward.evaluation.statistics import Estimate
from longreward.records import Role

MODELS: dict[Role, str] = {"sft": "SFT", "dpo": "DPO"}


def figures(evaluation: Evaluation, measured: Iterable[AnswerMeasures]) -> dict[str, str]:
    """File names and their SVG text: rewards.svg, gold.svg where the data has gold facts, lengths.svg."""
    drawn = {"rewards.svg": _bars(evaluation, JUDGED_MEASURES, "The judge's scores, SFT and DPO", top=10)}
    known: tuple[Measure, ...] = (*GOLD_MEASURES, "short")
    if _measured(evaluation, known):
        drawn["gold.svg"] = _bars(evaluation, known, "Against what is known to be right, SFT and DPO", top=1)
    lengths: dict[str, dict[str, list[float]]] = {}
    for one in measured:
        if "tokens" in one.values:
            of_model = lengths.setdefault(one.decoding, {model: [] for model in MODELS.values()})
            of_model[MODELS[one.role]].append(one.values["tokens"])
    if lengths:
        panels = [charts.Histogram(decoding, series) for decoding, series in lengths.items()]
        drawn["lengths.svg"] = charts.histograms("Length of the answers, SFT and DPO", panels, unit="tokens")
    return drawn


def plot_points(evaluation: Evaluation, measures: Sequence[Measure]) -> list[dict[str, str | float]]:
    """One bar each: {"bar": "greedy exact DPO", "value": 0.52}."""
    return [
        {"bar": f"{decoding} {measure} {MODELS[role]}", "value": estimates[measure].value}
        for measure in measures
        for (role, decoding), estimates in sorted(evaluation.means.items(), key=lambda item: item[0][1])
        if measure in estimates
    ]


def _bars(evaluation: Evaluation, measures: Sequence[Measure], title: str, *, top: float) -> str:
    panels = []
    for decoding in dict.fromkeys(decoding for _, decoding in evaluation.means):
        series: dict[str, dict[str, Estimate]] = {
            MODELS[role]: {measure: estimates[measure] for measure in measures if measure in estimates}
            for (role, at), estimates in evaluation.means.items()
            if at == decoding
        }
        panels.append(charts.Bars(decoding, series))
    return charts.bars(title, panels, top=top)


def _measured(evaluation: Evaluation, measures: Sequence[Measure]) -> bool:
    return any(measure in estimates for estimates in evaluation.means.values() for measure in measures)
