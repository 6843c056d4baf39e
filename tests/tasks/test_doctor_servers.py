"""The doctor's checks of servers, in this process; `tests/flows/cli/test_doctor.py` runs the command."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from http_server import JsonHandler, http_server
from mlflow import MlflowClient
from prefect import flow, get_client, task
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.states import Pending, Running

from longreward.judge import JudgeConfig
from longreward.params import Params
from longreward.tasks.doctor.finding import Finding, Level
from longreward.tasks.doctor.servers import check_servers

DEAD = "http://me:hush@127.0.0.1:9"


@pytest.fixture
def project(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the graph of a project, whose state folder is the default one."""
    monkeypatch.delenv("LONGREWARD_STATE")
    (workspace / "dvc.yaml").write_text("stages: {}\n")
    return workspace


@contextmanager
def status_server(status: int) -> Iterator[str]:
    """Run a server that answers every GET with a status, and yield its address."""

    class Handler(JsonHandler):
        def do_GET(self) -> None:
            self.send("", status)

    with http_server(Handler) as url:
        yield url


def failed_subjects(findings: list[Finding]) -> set[str]:
    return {finding.subject for finding in findings if finding.level == Level.FAILURE}


async def test_unreachable_servers_fail_without_passwords(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = JudgeConfig(kind="http", model="m", base_url="http://127.0.0.1:9/v1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", DEAD)
    monkeypatch.setenv("OPENAI_API_KEY", "hush")
    with temporary_settings({PREFECT_API_URL: f"{DEAD}/api"}):
        findings = [*await check_servers(Params().model_copy(update={"judge": judge}))]
    assert failed_subjects(findings) == {"judge", "prefect", "mlflow"}
    assert "hush" not in "".join(finding.message + finding.advice for finding in findings)


@pytest.mark.parametrize(("status", "message"), [(500, "500"), (401, "it refuses the login (401)")])
async def test_mlflow_server_that_refuses_fails(
    project: Path, prefect_server: str, status: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with status_server(status) as url:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        findings = await check_servers(Params())
    assert failed_subjects(findings) == {"mlflow"}
    assert any(message in finding.message for finding in findings)


async def test_missing_prefect_login_fails(project: Path, prefect_server: str) -> None:
    with temporary_settings(restore_defaults={PREFECT_API_AUTH_STRING}):
        findings = await check_servers(Params())
    assert failed_subjects(findings) == {"prefect"}
    assert any("PREFECT_API_AUTH_STRING is not set" in finding.message for finding in findings)


async def test_run_of_killed_process_closed(project: Path, prefect_server: str) -> None:
    (project / ".longreward/prefect/open-runs").mkdir(parents=True)
    store = MlflowClient(f"sqlite:///{project}/.longreward/mlflow.db")
    experiment = store.create_experiment("longreward", artifact_location=(project / "artifacts").as_uri())
    tags = {"longreward.host": platform.node(), "longreward.owner": "1-0.00"}
    tracked = store.create_run(experiment, tags=tags, run_name="brave-otter").info.run_id

    @flow(name="killed")
    def killed() -> None: ...

    async with get_client() as client:
        run = await client.create_flow_run(killed, state=Running())
        row = await client.create_task_run(task(killed.fn), run.id, dynamic_key="a", name="a", state=Pending())
        marker = project / f".longreward/prefect/open-runs/{run.id}.1-0.00"
        marker.touch()
        findings = await check_servers(Params())
        states = (await client.read_flow_run(run.id)).state, (await client.read_task_run(row.id)).state
    messages = {finding.subject: finding.message for finding in findings}
    assert failed_subjects(findings) == set()
    assert messages["prefect"] == "runs of killed processes are closed now: 1"
    assert messages["mlflow"] == "runs of killed processes are closed now: brave-otter"
    assert store.get_run(tracked).info.status == "KILLED"
    assert [state.is_crashed() for state in states if state] == [True, True]
    assert not marker.exists()
