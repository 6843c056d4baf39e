"""A stage whose servers are killed while it runs, and a stage whose outputs DVC does not record."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from toy_project import ToyProject, running_processes
from tracking_servers import kill_server, mlflow_server

from longreward.tasks.prefect_server import prefect_server
from longreward.tasks.state import STATE_VARIABLE


def shard_folders(project: ToyProject, stage: str) -> list[Path]:
    """Return the folders with shards and checkpoints of a stage."""
    return list((project.folder / ".longreward" / stage).glob("*"))


def test_progress_kept_until_dvc_records_stage(tmp_path: Path, prefect_server: str) -> None:
    project = ToyProject(tmp_path, prefect_server)
    project.write("lost")  # the stage ends well, but without its output
    assert project.run("dvc", "add", "-q", "data/raw")[0] == 0
    code, output = project.run("dvc", "repro", "--single-item", "prepare")
    assert code != 0
    assert "output 'data/prepared' does not exist" in output
    assert (project.folder / "worked").read_text() == "lost"
    code, output = project.run("dvc", "repro", "--single-item", "prepare")
    assert code == 0, output
    assert (project.folder / "worked").read_text() == "lost"  # no shard was repeated
    assert shard_folders(project, "prepare")  # the next stage or run removes it


@pytest.fixture
def separate_prefect(tmp_path: Path) -> Iterator[str]:
    """Start a Prefect server for one test, which kills it."""
    with pytest.MonkeyPatch.context() as patch:
        with temporary_settings(restore_defaults={PREFECT_API_URL, PREFECT_API_AUTH_STRING}):
            patch.setenv(STATE_VARIABLE, str(tmp_path / "prefect-state"))
            server = prefect_server()
        with temporary_settings(server.settings):
            yield server.url


def kill_prefect(state: Path) -> None:
    """Kill the server that `own_prefect` started."""
    (server,) = [
        process
        for process in running_processes(psutil.Process().children(recursive=True))
        if process.cmdline()[1:3] == ["-m", "longreward.tasks.prefect_server"]
        and process.environ()["PREFECT_HOME"] == str(state / "prefect")
    ]
    server.send_signal(signal.SIGKILL)
    psutil.wait_procs([server], timeout=30)


@pytest.mark.slow
def test_pipeline_after_prefect_server_killed(tmp_path: Path, separate_prefect: str) -> None:
    (tmp_path / "project").mkdir()
    project = ToyProject(tmp_path / "project", separate_prefect)
    project.write("wait")
    running = project.start("longreward.flows.cli.main", "run")
    while not (project.folder / "waiting").exists():
        assert running.poll() is None, running.communicate()[0]
        time.sleep(0.1)
    kill_prefect(tmp_path / "prefect-state")
    (project.folder / "go").touch()
    output, _ = running.communicate(timeout=200)
    assert running.returncode == 1
    assert "stage 1 of 2: prepare done" in output
    assert "longreward: error: the Prefect server at" in output  # of the next stage
    assert "Traceback" not in output
    assert (project.folder / "data/prepared/text").read_text() == "WAIT"
    assert shard_folders(project, "prepare") == []
    assert project.statuses() == {"FINISHED", "FAILED"}


@pytest.mark.slow
def test_stage_completes_after_servers_killed(tmp_path: Path, separate_prefect: str) -> None:
    (tmp_path / "project").mkdir()
    project = ToyProject(tmp_path / "project", separate_prefect)
    project.write("wait")
    assert project.run("dvc", "add", "-q", "data/raw")[0] == 0
    with mlflow_server(tmp_path / "mlflow") as (uri, server):
        project.environment["MLFLOW_TRACKING_URI"] = uri
        running = project.start("dvc", "repro", "--single-item", "prepare")
        while not (project.folder / "waiting").exists():
            assert running.poll() is None, running.communicate()[0]
            time.sleep(0.1)
        kill_prefect(tmp_path / "prefect-state")
        kill_server(server)
        (project.folder / "go").touch()
        output, _ = running.communicate(timeout=200)
    assert running.returncode == 0, output
    assert (project.folder / "data/prepared/text").read_text() == "WAIT"
    assert "prepare" in yaml.safe_load((project.folder / "dvc.lock").read_text())["stages"]
    assert project.report("prepare").metrics["pairs"] == 4
    assert "are not recorded there" in output
    assert "the end of the run could not be recorded in Prefect" in output
    assert "Traceback" not in output
    assert os.listdir(project.folder / "plots") == ["prepare.csv"]
