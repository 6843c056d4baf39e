"""Write evaluations to files; log them and benchmarks to MLflow: tables, figures, runs per model, the registry."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from longreward.benchmarks.report import BenchmarkReport
from longreward.benchmarks.report import markdown as benchmark_markdown
from longreward.evaluation.config import GOLD_MEASURES, JUDGED_MEASURES, EvaluateConfig, Measure
from longreward.evaluation.example_metrics import answers_table, measures_table
from longreward.evaluation.measures import AnswerMeasures
from longreward.evaluation.plots import figures, plot_points
from longreward.evaluation.report import Evaluation, markdown
from longreward.records import Role
from longreward.tasks.champion_event import emit_champion_changed
from longreward.tasks.dvc_files import data_hashes
from longreward.tasks.mlflow_comparison import beats_champion
from longreward.tasks.model_card import without_metadata
from longreward.tasks.stage import write_points
from longreward.tasks.tracking import registry
from longreward.tasks.tracking.history import ANSWERS, MEASURES, TABLE, run_tags
from longreward.tasks.tracking.registry import CHAMPION_BEFORE, CHAMPION_NOW
from longreward.tasks.tracking.run import UNKNOWN, Run
from longreward.tasks.tracking.run_hierarchy import log_model_run
from longreward.tasks.tracking.store import TrackingUnavailable
from longreward.utils.jsonl import open_atomic

MODELS: dict[Role, Path] = {"sft": Path("models/sft"), "dpo": Path("models/dpo")}
PLOTS: dict[str, tuple[Measure, ...]] = {"judged": JUDGED_MEASURES, "gold": GOLD_MEASURES, "lengths": ("tokens",)}


def write_evaluation(out: Path, evaluation: Evaluation) -> None:
    """Write table and report to the folder `out`, and the points of the plots to plots/."""
    with open_atomic(out / "table.json") as file:
        json.dump(evaluation.as_json(), file, indent=1)
    with open_atomic(out / "report.md") as file:
        file.write(markdown(evaluation))
    for name, group in PLOTS.items():
        write_points(Path(f"plots/evaluate-{name}.csv"), plot_points(evaluation, group), ("bar", "value"))


def log_evaluation(
    run: Run,
    config: EvaluateConfig,
    evaluation: Evaluation,
    answers: Sequence[AnswerMeasures],
    prompts: Mapping[str, str],
    *,
    card: str,
) -> str:
    """Log an evaluation and register the trained model with its card; return a message about the registered version.

    `prompts` has the hash of each example's prompt.

    The model becomes the champion if it meets the champion rule against its SFT model and is shown to be better than
    the present champion.
    """
    run.log_report("report.md", markdown(evaluation))
    run.log_json(TABLE, evaluation.as_json())
    measures = measures_table(answers, prompts)
    run.log_json(MEASURES, measures)
    run.log_table(ANSWERS, answers_table(answers))
    for name, figure in figures(evaluation, answers).items():
        run.log_figure(f"figures/{name}", figure)
    run.log_text("model_card.md", card)
    model_runs = _log_model_runs(run, {role: evaluation.metrics(role) for role in MODELS})
    try:
        if model_runs["dpo"] == UNKNOWN:
            raise TrackingUnavailable("MLflow has no run of this evaluation")
        before = registry.champion(config.registered_model)
        champion, comparison = evaluation.champion, ""
        if before and champion:
            champion, comparison = beats_champion(before, measures, config, judge=run_tags(run.id).get("judge"))
        run.set_tags({CHAMPION_BEFORE: before or "none", CHAMPION_NOW: str(champion).lower()})
        version = registry.register(
            config.registered_model,
            model_runs["dpo"],
            source_hash=_dvc_hash("dpo"),
            path=MODELS["dpo"],
            champion=champion,
            card=without_metadata(card),
        )
        if champion:
            emit_champion_changed(config.registered_model, version, evaluation=run.id, previous=before)
    except TrackingUnavailable as error:
        return (
            f"the model is not registered: {error}; once the store answers again, "
            "`longreward run --force --stages evaluate` registers it"
        )
    if not comparison:
        return f"registered as version {version}{', the champion' if champion else ''}"
    if champion:
        return f"registered as version {version}, the champion: {comparison}"
    return (
        f"registered as version {version}; the champion stays, since this model is not shown to be better: "
        f"{comparison}. Move the alias in MLflow's registry ({config.registered_model}) to replace it nevertheless"
    )


def log_benchmarks(run: Run, report: BenchmarkReport) -> None:
    """Log the report, and a run for each model with the same metric names."""
    run.log_report("report.md", benchmark_markdown(report))
    _log_model_runs(run, {role: report.metrics(role) for role in MODELS if role in report.roles})


def _log_model_runs(run: Run, metrics: Mapping[Role, Mapping[str, float]]) -> dict[Role, str]:
    """Log one MLflow run per model under the stage's, and return their ids."""
    return {
        role: log_model_run(run, role, values, tags={"dvc.path": MODELS[role].as_posix(), "dvc.md5": _dvc_hash(role)})
        for role, values in metrics.items()
    }


def _dvc_hash(role: Role) -> str:
    return data_hashes([MODELS[role]]).get(MODELS[role].as_posix(), "unknown")
