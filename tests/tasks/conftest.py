"""A working folder for tests of tasks."""

from pathlib import Path

import pytest

from longreward.tasks.state import STATE_VARIABLE


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty working folder with a state folder, without variables inherited from outside."""
    monkeypatch.chdir(tmp_path)
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI", "LONGREWARD_PARENT_RUN", "LONGREWARD_PARENT_TASK_RUN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    return tmp_path
