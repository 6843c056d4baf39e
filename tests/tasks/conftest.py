"""A Prefect server and stores of the tests' own, in temporary folders."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.server import prefect_url
from tasks.state import VARIABLE


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that these tests share; it ends by itself after them."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    before = {name: os.environ.get(name) for name in (VARIABLE, "PREFECT_API_URL")}
    os.environ[VARIABLE] = str(tmp_path_factory.mktemp("server"))
    os.environ.pop("PREFECT_API_URL", None)
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        url = prefect_url()
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    with temporary_settings({PREFECT_API_URL: url}):
        yield url


@pytest.fixture
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a state folder in it, and nothing handed down from outside."""
    monkeypatch.chdir(tmp_path)
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI", "LONGREWARD_PARENT_RUN", "LONGREWARD_PARENT_TASK_RUN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "state"))
    return tmp_path
