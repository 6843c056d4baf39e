"""An evaluation in MLflow: tables and figures, one run a model, the trained model in the registry."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from longreward.evaluation.config import EvaluateConfig
from longreward.evaluation.figures import figures
from longreward.evaluation.measuring import Measured, Role
from longreward.evaluation.report import Evaluation
from longreward.evaluation.table import markdown
from longreward.evaluation.tables import answers_table, measures_table
from longreward.records import Example
from tasks import tracking
from tasks.tracking.history import ANSWERS, MEASURES, TABLE
from tasks.versioning import data_hashes


def record(
    run: tracking.Run,
    config: EvaluateConfig,
    evaluation: Evaluation,
    measured: Sequence[Measured],
    examples: Mapping[str, Example],
    *,
    models: Mapping[Role, Path],
) -> str:
    """Returns the version under which the trained model is registered, a champion or not."""
    report = markdown(evaluation)
    run.note(report)
    run.text("report.md", report)
    run.json(TABLE, evaluation.as_json())
    run.json(MEASURES, measures_table(measured, examples))
    run.table(ANSWERS, answers_table(measured, examples))
    for name, drawn in figures(evaluation, measured).items():
        run.text(f"figures/{name}", drawn)
    before = tracking.champion(config.registered_model)
    run.tag({tracking.CHAMPION_BEFORE: before or "none", "longreward.champion": str(evaluation.champion).lower()})
    return _register(run, config, evaluation, models)


def _register(run: tracking.Run, config: EvaluateConfig, evaluation: Evaluation, models: Mapping[Role, Path]) -> str:
    """One MLflow run a model under the same metric names, and the trained model in the registry."""
    known = data_hashes(tuple(models.values()))
    hashes = {role: known.get(path.as_posix(), "unknown") for role, path in models.items()}
    runs = {
        role: tracking.model_run(
            run, role, evaluation.figures(role), tags={"dvc.path": path.as_posix(), "dvc.md5": hashes[role]}
        )
        for role, path in models.items()
    }
    return tracking.register(
        config.registered_model,
        runs["dpo"],
        source_hash=hashes["dpo"],
        path=models["dpo"],
        champion=evaluation.champion,
    )
