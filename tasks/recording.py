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
from tasks.comparing import better_champion
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
    """Says under which version the trained model is registered, and whether it is the champion now.

    It is where it meets the champion rule against its SFT model, and the champion before is not shown to be better.
    """
    report = markdown(evaluation)
    run.note(report)
    run.text("report.md", report)
    run.json(TABLE, evaluation.as_json())
    taken = measures_table(measured, examples)
    run.json(MEASURES, taken)
    run.table(ANSWERS, answers_table(measured, examples))
    for name, drawn in figures(evaluation, measured).items():
        run.text(f"figures/{name}", drawn)
    before = tracking.champion(config.registered_model)
    ahead = better_champion(before, taken, config) if before and evaluation.champion else None
    champion = evaluation.champion and ahead is None
    run.tag({tracking.CHAMPION_BEFORE: before or "none", "longreward.champion": str(champion).lower()})
    version = _register(run, config, evaluation, models, champion=champion)
    if ahead is None:
        return f"registered as version {version}{', the champion' if champion else ''}"
    return (
        f"registered as version {version}; the champion stays: its {ahead.measure} at {ahead.decoding} is "
        f"{ahead.first.value:.3f}, this one's {ahead.second.value:.3f}, and the interval excludes zero"
    )


def _register(
    run: tracking.Run, config: EvaluateConfig, evaluation: Evaluation, models: Mapping[Role, Path], *, champion: bool
) -> str:
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
        champion=champion,
    )
