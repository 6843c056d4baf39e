"""MLflow's store: SQLite in the state folder unless `MLFLOW_TRACKING_URI` names one."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from longreward.tasks.state import locked, private_copies
from longreward.tasks.tracking.probe import TrackingUnavailable, missing_driver, probe_store, unavailable
from longreward.tasks.tracking.uris import artifact_location, store_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "longreward"

# MLflow's defaults hold a training up for five minutes where its server is away. What is not sent is kept (`outbox`).
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "60"}


@cache
def client() -> MlflowClient:
    """Open the store; raises TrackingUnavailable, in one line, where that cannot be done.

    Under a lock: when several processes first use a new SQLite store at once, its tables are made twice.
    """
    from mlflow import MlflowClient

    uri = store_uri()
    with locked("mlflow"), opening(uri):
        opened = MlflowClient(tracking_uri=uri, registry_uri=uri)
        _ensure_experiment(opened)
    return opened


@contextmanager
def opening(uri: str) -> Iterator[None]:
    """Look whether the store answers, and turn what goes wrong in the block into TrackingUnavailable."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # else a traceback for a database that ended
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # a warning for each retry
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar for every small file
    # MLflow prints the address of each run that ends on a tracking server, with the login that it may hold.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    try:
        probe_store(uri)
        yield
    except ImportError as error:
        raise missing_driver(uri, error) from None
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise unavailable(uri, error) from error


@cache
def experiment_id() -> str:
    """The experiment that all runs of this project belong to."""
    return str(client().get_experiment_by_name(EXPERIMENT).experiment_id)


def has_experiment() -> bool:
    """Whether there are runs of this project, found out without making a store or an experiment for them.

    Raises TrackingUnavailable, also where the experiment is not to be used.
    """
    from mlflow import MlflowClient

    uri = store_uri()
    if uri.startswith("sqlite") and not Path(uri.partition(":///")[2].partition("?")[0]).exists():
        return False
    with opening(uri):
        found = MlflowClient(uri, uri).get_experiment_by_name(EXPERIMENT)
    if found is not None:
        _check_experiment(found)
    return found is not None


def _ensure_experiment(opened: MlflowClient) -> None:
    from mlflow.exceptions import MlflowException

    found = opened.get_experiment_by_name(EXPERIMENT)
    if found is None:
        try:
            opened.create_experiment(EXPERIMENT, artifact_location=artifact_location(EXPERIMENT))
        except MlflowException as error:  # another machine may have been quicker, on a server that they share
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
    else:
        _check_experiment(found)


def _check_experiment(found: Any) -> None:
    """Refuse an experiment that would lose what it is given. Nothing in MLflow can change where it keeps artifacts."""
    another = "set MLFLOW_EXPERIMENT_NAME to a new name"
    if found.lifecycle_stage == "deleted":
        raise TrackingUnavailable(f"MLflow's experiment {EXPERIMENT!r} is deleted: restore it, or {another}")
    place = urlsplit(found.artifact_location or "")
    if place.scheme in ("", "file") and Path(url2pathname(place.path)).is_relative_to(private_copies()):
        raise TrackingUnavailable(
            f"MLflow's experiment {EXPERIMENT!r} keeps its artifacts in {found.artifact_location}, where an earlier "
            f"version put it and which every run with -S deletes: {another}"
        )
