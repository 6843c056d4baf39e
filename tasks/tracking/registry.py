"""MLflow's model registry: the trained model by its DVC hash, and the `champion` alias."""

from pathlib import Path

from longreward.tasks.tracking.outbox import store_errors
from longreward.tasks.tracking.run import shorten_note
from longreward.tasks.tracking.store import client

# Tags of an evaluate run: the run that evaluated the champion which its model was compared with, and the outcome.
CHAMPION_BEFORE, CHAMPION_NOW = "longreward.champion_before", "longreward.champion"

MODEL_DESCRIPTION = (
    "Policies trained with LongReward, a version for each evaluated training. The alias `champion` is the best one by "
    "the rule `evaluate.champion`; the bytes of a version are in DVC, under the hash in its tags."
)
MAX_DESCRIPTION = 5000  # characters, in MLflow's databases


def register(name: str, run_id: str, *, source_hash: str, path: Path, champion: bool, card: str = "") -> str:
    """Register a model by its DVC hash (its bytes stay in DVC) and return the version.

    With `champion` the alias moves to it. `card` is shown as the description of the version, as far as it fits. Raises
    TrackingUnavailable.
    """
    restore = f"`dvc checkout {path}` at the commit of its run restores the files."
    from mlflow.exceptions import MlflowException

    with store_errors():
        try:
            client().create_registered_model(name, description=MODEL_DESCRIPTION)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        version = client().create_model_version(
            name,
            source=f"dvc://md5/{source_hash}",
            run_id=run_id,
            tags={"dvc.md5": source_hash, "dvc.path": path.as_posix()},
            description=f"{restore}\n\n{shorten_note(card, 'model_card.md', limit=MAX_DESCRIPTION - 200)}",
            await_creation_for=0,
        )
        if champion:
            client().set_registered_model_alias(name, "champion", version.version)
    return str(version.version)


def champion(name: str) -> str | None:
    """Return the id of the evaluate run of the champion; None if there is none, or its run is deleted.

    Raises TrackingUnavailable.
    """
    from mlflow.exceptions import MlflowException

    with store_errors():
        try:
            version = client().get_model_version_by_alias(name, "champion")
            model_run = client().get_run(version.run_id)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            return None
    evaluation = model_run.data.tags.get("mlflow.parentRunId")
    return str(evaluation) if evaluation else None
