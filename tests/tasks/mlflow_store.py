"""A separate MLflow store for each test. Creating its tables takes seconds, so each is a copy of an empty one."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from mlflow import MlflowClient

from longreward.tasks.tracking.run_hierarchy import PARENT
from longreward.tasks.tracking.store import client, experiment_id


@cache
def _empty_store() -> Path:
    """Create a store with tables and no experiment of ours."""
    folder = tempfile.TemporaryDirectory()
    file = Path(folder.name) / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    _folders.append(folder)
    return file


_folders: list[tempfile.TemporaryDirectory[str]] = []  # deleted at exit


@contextmanager
def mlflow_store(folder: Path) -> Iterator[pytest.MonkeyPatch]:
    """Work in `folder` with a separate store; yield a MonkeyPatch that is undone at the end."""
    if not (database := folder / "state/mlflow.db").exists():
        database.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_empty_store(), database)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("LONGREWARD_STATE", str(folder / "state"))
        for name in ("MLFLOW_TRACKING_URI", "DVC_ROOT", PARENT):
            patch.delenv(name, raising=False)
        client.cache_clear()
        experiment_id.cache_clear()
        yield patch
    client.cache_clear()
    experiment_id.cache_clear()
