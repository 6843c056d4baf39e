"""`longreward serve` as a separate process with its own Prefect server and MLflow server."""

import asyncio
import http.client
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import temporary_settings
from toy_project import ToyProject, running_processes

from longreward.params import stage_names
from longreward.tasks.prefect_server import PrefectServer

CODE = "import sys; from longreward.flows.cli.main import main; sys.exit(main())"


@pytest.fixture
def project(tmp_path: Path) -> ToyProject:
    """Return a toy project that starts its own servers and has its own home folder."""
    project = ToyProject(tmp_path / "project", "")
    project.environment.pop("PREFECT_API_URL")
    project.environment.pop("PREFECT_API_AUTH_STRING", None)
    project.environment["HOME"] = str(tmp_path)
    project.environment["PREFECT_RUNNER_POLL_FREQUENCY"] = "1"  # seconds, by default 10
    project.write("ab")
    project.commit()
    return project


@pytest.fixture
def serve_process(project: ToyProject) -> Iterator["subprocess.Popen[str]"]:
    """Start `longreward serve`, and kill it after the test."""
    process = project.start("-c", CODE, "serve", module=False)
    yield process
    process.kill()
    process.wait()
    assert process.stdout
    process.stdout.close()


def read_addresses(process: "subprocess.Popen[str]") -> tuple[str, Path, str]:
    """Read what the command prints: Prefect's address, the file of its login, MLflow's address."""
    assert process.stdout
    output = ""
    for line in process.stdout:
        output += line
        if "Ctrl-C" in line:
            break
    match = re.search(r"Prefect  (\S+)\n\s+log in with the line in (\S+)\n\s+MLflow   (http://[^/]+)", output)
    assert match, output
    return match[1], Path(match[2]), match[3]


def request(url: str, path: str, method: str = "GET", **headers: str) -> int:
    """Send a request without a login and return the status of the response."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    connection.request(method, path, body=b"{}" if method == "POST" else None, headers=headers)
    status = connection.getresponse().status
    connection.close()
    return status


def test_serve_outside_project(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", CODE, "serve"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "longreward: error: dvc.yaml is not here; run this in the project's folder\n"
    assert list(tmp_path.iterdir()) == []


def test_serve_port_in_use(project: ToyProject) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        code, output = project.run("-c", CODE, "serve", "--port", str(port), module=False)
    assert code == 1
    assert output == f"longreward: error: cannot listen on 127.0.0.1 port {port}: Address already in use\n"


async def test_serve_creates_and_runs_deployments(project: ToyProject, serve_process: "subprocess.Popen[str]") -> None:
    prefect, auth_file, mlflow = read_addresses(serve_process)
    assert request(prefect, "/api/flow_runs/filter", "POST") == 401
    assert request(prefect, "/api/health", Host="evil.example") == 403
    assert request(prefect, "/api/flow_runs/filter", "POST", Origin="https://evil.example") == 403
    with temporary_settings(PrefectServer(f"{prefect}/api", auth_file.read_text()).settings):
        async with get_client() as client:
            while len(deployments := await client.read_deployments()) < 1 + len(stage_names()):
                assert serve_process.poll() is None, serve_process.communicate()[0]
                await asyncio.sleep(0.2)
            deployment_ids = {deployment.name: deployment.id for deployment in deployments}
            assert set(deployment_ids) == {"all", *stage_names()}
            run = await client.create_flow_run_from_deployment(deployment_ids["prepare"])
            while (state := (await client.read_flow_run(run.id)).state) is None or not state.is_final():
                assert serve_process.poll() is None, serve_process.communicate()[0]
                await asyncio.sleep(0.2)
    assert state.is_completed(), state.message
    assert (project.folder / "data/prepared/text").read_text() == "AB"

    assert request(mlflow, "/", Host="evil.example") == 403
    assert request(mlflow, "/api/2.0/mlflow/experiments/create", "POST", Origin="https://evil.example") == 403
    assert request(mlflow, "/") == 200
    own_origin = {"Origin": mlflow, "Content-Type": "application/json"}
    assert request(mlflow, "/ajax-api/2.0/mlflow/experiments/search?max_results=1", **own_origin) == 200

    serve_process.terminate()
    output = serve_process.communicate(timeout=120)[0]
    assert serve_process.returncode == 0, output
    assert f"View at {prefect}/v2/runs/flow-run/{run.id}\n" in output
    assert not re.search("Warning|Traceback", output), output


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM])
def test_serve_stops_servers_on_each_signal(serve_process: "subprocess.Popen[str]", number: signal.Signals) -> None:
    read_addresses(serve_process)
    children = psutil.Process(serve_process.pid).children(recursive=True)
    commands = [" ".join(process.cmdline()) for process in children]
    for name in ("longreward.tasks.prefect_server", "mlflow", "longreward.tasks.supervise"):
        assert any(name in command for command in commands)
    serve_process.send_signal(number)
    serve_process.communicate(timeout=120)
    psutil.wait_procs(children, timeout=120)
    assert not running_processes(children)


RAISE_IN_FINALIZER = """
import signal
from longreward.flows import serve

class Finalized:
    def __del__(self):
        signal.raise_signal(signal.SIGHUP)

def create_deployments():
    Finalized()
    return original()

original, serve.create_deployments = serve.create_deployments, create_deployments
serve.serve()
"""


def test_serve_stops_at_signal_in_finalizer(tmp_path: Path, prefect_server: str) -> None:
    project = ToyProject(tmp_path, prefect_server)
    project.commit()
    code, output = project.run("-c", RAISE_IN_FINALIZER, module=False)
    assert "Exception ignored in: <function Finalized.__del__" in output
    assert code == 0, output


SIGNAL_WHILE_RUNNER_STARTS = """
import signal
from longreward.flows import serve
from prefect.runner import _event_emitter

enter = _event_emitter.EventEmitter.__aenter__

async def enter_after_signal(self):
    signal.raise_signal(signal.SIGHUP)
    return await enter(self)

_event_emitter.EventEmitter.__aenter__ = enter_after_signal
serve.serve()
"""


def test_serve_stops_runner_that_starts(tmp_path: Path, prefect_server: str) -> None:
    project = ToyProject(tmp_path, prefect_server)
    project.commit()
    code, output = project.run("-c", SIGNAL_WHILE_RUNNER_STARTS, module=False)
    assert code == 0, output
    assert "All deployments have been paused!" in output
