"""MLflow's registry: the trained model by its DVC hash, and which one is the champion."""

from pathlib import Path

from longreward.tasks.tracking.outbox import store_errors
from longreward.tasks.tracking.store import client

CHAMPION_BEFORE = "longreward.champion_before"  # an evaluate run's tag: that of the champion which its model met


def register(name: str, run_id: str, *, source_hash: str, path: Path, champion: bool) -> str:
    """Enters a model into the registry by its DVC hash (its bytes stay with DVC) and returns the version.

    `champion` moves the alias of that name to it. Raises TrackingUnavailable.
    """
    with store_errors():
        version = _register(name, run_id, source_hash=source_hash, path=path)
        if champion:
            client().set_registered_model_alias(name, "champion", version)
    return version


def _register(name: str, run_id: str, *, source_hash: str, path: Path) -> str:
    from mlflow.exceptions import MlflowException

    try:
        client().create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client().create_model_version(
        name,
        source=f"dvc://md5/{source_hash}",
        run_id=run_id,
        tags={"dvc.md5": source_hash, "dvc.path": path.as_posix()},
        description=f"{path} as DVC knows it; `dvc checkout {path}` at the run's commit brings it back.",
        await_creation_for=0,
    )
    return str(version.version)


def champion(name: str) -> str | None:
    """The evaluate run that measured the model which has the alias now; None where none has, or its run is gone.

    Raises TrackingUnavailable.
    """
    from mlflow.exceptions import MlflowException

    with store_errors():
        try:
            version = client().get_model_version_by_alias(name, "champion")
            model = client().get_run(version.run_id)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            return None
    measured = model.data.tags.get("mlflow.parentRunId")
    return str(measured) if measured else None
