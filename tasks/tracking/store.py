"""MLflow's store: SQLite in the state folder unless `MLFLOW_TRACKING_URI` names one."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

from longreward.errors import StateError
from tasks.state import locked, made, state_folder

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "longreward"


def store_uri() -> str:
    """Where runs are kept."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{state_folder() / 'mlflow.db'}"


@cache
def client() -> MlflowClient:
    """Opened under a lock: when several processes first use a new SQLite store at once, its tables are made twice."""
    import logging

    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # "Creating initial MLflow database tables"
    logging.getLogger("alembic").setLevel(logging.WARNING)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar for every small file
    uri = store_uri()
    with locked("mlflow"):
        opened = MlflowClient(tracking_uri=uri, registry_uri=uri)
        try:
            if opened.get_experiment_by_name(EXPERIMENT) is None:
                own = not os.environ.get("MLFLOW_TRACKING_URI")
                place = made(state_folder() / "mlartifacts").as_uri() if own else None
                opened.create_experiment(EXPERIMENT, artifact_location=place)
        except (MlflowException, OSError) as error:
            raise StateError(f"MLflow's store at {uri} cannot be used: {error}") from error
    return opened


@cache
def experiment_id() -> str:
    """The experiment that all runs of this project belong to."""
    return str(client().get_experiment_by_name(EXPERIMENT).experiment_id)
