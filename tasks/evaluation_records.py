"""Evaluations and benchmarks in MLflow: tables and figures, one run a model, the trained model in the registry."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longreward.benchmarks.plots import figures as benchmark_figures
from longreward.benchmarks.report import BenchmarkReport
from longreward.benchmarks.report import markdown as report_of_benchmarks
from longreward.evaluation.config import EvaluateConfig
from longreward.evaluation.example_metrics import answers_table, measures_table
from longreward.evaluation.measures import AnswerMeasures
from longreward.evaluation.plots import figures
from longreward.evaluation.report import Evaluation, markdown
from longreward.records import Example, Role
from longreward.tasks import tracking
from longreward.tasks.dvc_command import data_hashes
from longreward.tasks.mlflow_comparison import beats_champion
from longreward.tasks.tracking import history
from longreward.tasks.tracking.history import ANSWERS, MEASURES, TABLE

MODELS: dict[Role, Path] = {"sft": Path("models/sft"), "dpo": Path("models/dpo")}


def record_evaluation(
    run: tracking.Run,
    config: EvaluateConfig,
    evaluation: Evaluation,
    measured: Sequence[AnswerMeasures],
    examples: Mapping[str, Example],
) -> str:
    """Says under which version the trained model is registered, and whether it is the champion now.

    It is where it meets the champion rule against its SFT model, and is shown to be better than the champion before.
    """
    run.report("report.md", markdown(evaluation))
    run.json(TABLE, evaluation.as_json())
    taken = measures_table(measured, examples)
    run.json(MEASURES, taken)
    run.table(ANSWERS, answers_table(measured, examples))
    for name, drawn in figures(evaluation, measured).items():
        run.text(f"figures/{name}", drawn)
    runs = _model_runs(run, {role: evaluation.figures(role) for role in MODELS})
    try:
        return _register(run, config, evaluation, taken, model_run=runs["dpo"])
    except tracking.TrackingUnavailable as error:
        return (
            f"the model is not registered: {error}; once the store answers again, "
            "`longreward run --force --stages evaluate` registers it"
        )


def record_benchmarks(run: tracking.Run, report: BenchmarkReport) -> None:
    """The report and its pictures with the run, and a run for each model under the same metric names."""
    run.report("report.md", report_of_benchmarks(report))
    for name, drawn in benchmark_figures(report).items():
        run.text(f"figures/{name}", drawn)
    _model_runs(run, {role: report.figures(role) for role in MODELS if role in report.roles})


def _register(
    run: tracking.Run, config: EvaluateConfig, evaluation: Evaluation, taken: dict[str, Any], *, model_run: str
) -> str:
    """Enters the trained model into the registry and says so. Raises TrackingUnavailable."""
    if model_run == tracking.UNKNOWN:
        raise tracking.TrackingUnavailable("MLflow has no run of this evaluation")
    before = tracking.champion(config.registered_model)
    champion, compared = evaluation.champion, ""
    if before and champion:
        judge = history.run_tags(run.id).get("judge")
        champion, compared = beats_champion(before, taken, config, judge=judge)
    run.tag({tracking.CHAMPION_BEFORE: before or "none", "longreward.champion": str(champion).lower()})
    version = tracking.register(
        config.registered_model,
        model_run,
        source_hash=data_hashes((MODELS["dpo"],)).get(MODELS["dpo"].as_posix(), "unknown"),
        path=MODELS["dpo"],
        champion=champion,
    )
    if not compared:
        return f"registered as version {version}{', the champion' if champion else ''}"
    if champion:
        return f"registered as version {version}, the champion: {compared}"
    return (
        f"registered as version {version}; the champion stays, since this model is not shown to be better: {compared}. "
        f"Move the alias in MLflow's registry ({config.registered_model}) if it is to be replaced all the same"
    )


def _model_runs(run: tracking.Run, figures: Mapping[Role, Mapping[str, float]]) -> dict[Role, str]:
    """One MLflow run a model, under the stage's."""
    known = data_hashes(tuple(MODELS[role] for role in figures))
    paths = {role: MODELS[role].as_posix() for role in figures}
    return {
        role: tracking.model_run(
            run, role, of, tags={"dvc.path": paths[role], "dvc.md5": known.get(paths[role], "unknown")}
        )
        for role, of in figures.items()
    }
