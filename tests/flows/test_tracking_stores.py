"""A run with its own settings on PostgreSQL, and on a tracking server with a login."""

import subprocess
from pathlib import Path

import psutil
import pytest
from toy_project import ToyProject
from tracking_servers import PASSWORD, USER, mlflow_server, postgres

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path: Path, prefect_server: str) -> ToyProject:
    (tmp_path / "project").mkdir()
    project = ToyProject(tmp_path / "project", prefect_server)
    project.write("ab")
    project.commit()
    return project


def read_pair_artifact(project: ToyProject) -> str:
    """Return the artifact of the stage `pair`; its private copy no longer exists."""
    store = project.store
    runs = store.search_runs([store.get_experiment_by_name("longreward").experiment_id], "tags.longreward.stage='pair'")
    (pair,) = runs
    return Path(store.download_artifacts(pair.info.run_id, "pair.txt")).read_text()


def test_run_on_postgres(project: ToyProject) -> None:
    with postgres() as uri:
        project.environment["MLFLOW_TRACKING_URI"] = uri
        running = project.start("longreward.flows.cli.main", "run", "-S", "pair.min_scored=4", "--name", "four")
        pipeline, commands = psutil.Process(running.pid), set[str]()
        while running.poll() is None:
            for process in (pipeline, *pipeline.children(recursive=True)):
                try:
                    commands.add(" ".join(process.cmdline()))
                except psutil.Error:
                    continue
            try:
                output, _ = running.communicate(timeout=0.2)
            except subprocess.TimeoutExpired:
                continue
        assert running.returncode == 0, output
        assert read_pair_artifact(project) == "twice"
        assert project.statuses() == {"FINISHED"}
    assert any("toy.py pair" in command for command in commands)
    outputs = {"the output": output, "a command": "\n".join(commands)}
    files = {str(path): path.read_text(errors="replace") for path in project.folder.rglob("*") if path.is_file()}
    assert [path for path, text in (outputs | files).items() if PASSWORD in text] == []
    assert 'MLFLOW_BACKEND_STORE_URI="$MLFLOW_TRACKING_URI"' in output


def test_run_on_tracking_server_with_login(
    project: ToyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mlflow_server(tmp_path / "mlflow", logins=True) as (uri, _):
        project.environment["MLFLOW_TRACKING_URI"] = uri
        project.environment["MLFLOW_TRACKING_USERNAME"] = USER
        project.environment["MLFLOW_TRACKING_PASSWORD"] = "wrong"
        code, output = project.pipeline("-S", "pair.min_scored=4", "--name", "four")
        assert code == 1
        assert f"{uri} cannot be used: it refuses the login (401); set MLFLOW_TRACKING_USERNAME and" in output
        assert "Traceback" not in output
        project.environment["MLFLOW_TRACKING_PASSWORD"] = PASSWORD
        project.environment["MLFLOW_TRACKING_URI"] = uri.replace("//", f"//{USER}:{PASSWORD}@")  # MLflow prints it
        code, output = project.pipeline("-S", "pair.min_scored=4", "--name", "five")
        assert code == 0, output
        assert PASSWORD not in output
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        assert read_pair_artifact(project) == "twice"
        assert project.statuses() == {"FINISHED"}
