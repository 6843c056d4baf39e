"""A Prefect server and stores of the tests' own, in temporary folders."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from longreward.tasks.prefect_server import prefect_server as start_server
from longreward.tasks.state import STATE_VARIABLE


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that these tests share; it ends by itself after them."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    with (
        pytest.MonkeyPatch.context() as patch,
        temporary_settings(restore_defaults={PREFECT_API_URL, PREFECT_API_AUTH_STRING}),
    ):
        patch.setenv(STATE_VARIABLE, str(tmp_path_factory.mktemp("server")))
        server = start_server()
    with temporary_settings(server.settings):
        yield server.url


@pytest.fixture
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a state folder in it, and nothing handed down from outside."""
    monkeypatch.chdir(tmp_path)
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI", "LONGREWARD_PARENT_RUN", "LONGREWARD_PARENT_TASK_RUN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    return tmp_path
