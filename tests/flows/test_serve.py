"""`longreward serve` as a process of its own, with a Prefect server and an MLflow server of its own."""

import http.client
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import temporary_settings
from toy_project import ToyProject, alive

from longreward.tasks.prefect_server import PrefectServer

CODE = "import sys; from longreward.flows.cli.main import main; sys.exit(main())"


@pytest.fixture
def project(tmp_path: Path) -> ToyProject:
    """A toy project without a Prefect server from elsewhere."""
    project = ToyProject(tmp_path, "")
    project.environment.pop("PREFECT_API_URL")
    project.environment.pop("PREFECT_API_AUTH_STRING", None)
    project.write("ab")
    project.commit()
    return project


@pytest.fixture
def serve(project: ToyProject) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Starts `longreward serve`, and ends it and what it left."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> "subprocess.Popen[str]":
        started.append(project.start("-c", CODE, "serve", *arguments, module=False))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def addresses(serving: "subprocess.Popen[str]") -> tuple[str, Path, str]:
    """Prefect's address, the file with its login, MLflow's address: what the command prints once it serves."""
    assert serving.stdout
    words = ""
    for line in serving.stdout:
        words += line
        if "Ctrl-C" in line:
            break
    match = re.search(r"Prefect  (\S+)\n\s+log in with the line in (\S+)\n\s+MLflow   (http://[^/]+)", words)
    assert match, words
    return match[1], Path(match[2]), match[3]


def request(url: str, path: str, method: str = "GET", **headers: str) -> int:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    connection.request(method, path, body=b"{}" if method == "POST" else None, headers=headers)
    status = connection.getresponse().status
    connection.close()
    return status


def test_serve_outside_project(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, "serve"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "ConfigError: dvc.yaml is not here; run this in the project's folder\n"
    assert list(tmp_path.iterdir()) == []


def test_serve_port_in_use(project: ToyProject, serve: Callable[..., object]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        serving = project.start("-c", CODE, "serve", "--port", str(port), module=False)
        words, _ = serving.communicate()
    assert serving.returncode == 1
    assert words == f"ConfigError: cannot listen on 127.0.0.1 port {port}: Address already in use\n"


@pytest.mark.slow
async def test_serve_access_and_trigger(project: ToyProject, serve: Callable[..., "subprocess.Popen[str]"]) -> None:
    serving = serve()
    prefect, login, mlflow = addresses(serving)
    assert request(prefect, "/api/flow_runs/filter", "POST") == 401
    assert request(prefect, "/api/health", Host="evil.example") == 403
    assert request(prefect, "/api/flow_runs/filter", "POST", Origin="https://evil.example") == 403
    with temporary_settings(PrefectServer(f"{prefect}/api", login.read_text()).settings):
        async with get_client() as client:
            while not (deployments := [one for one in await client.read_deployments() if one.name == "all"]):
                assert serving.poll() is None
            (deployment,) = deployments
            run = await client.create_flow_run_from_deployment(deployment.id, name="with-the-login")
            while (state := (await client.read_flow_run(run.id)).state) is None or not state.is_final():
                assert request(prefect, "/api/health") == 200
            assert state.is_completed(), state.message

    created = "/api/2.0/mlflow/experiments/create"
    assert request(mlflow, "/", Host="evil.example") == 403
    assert request(mlflow, created, "POST", Origin="https://evil.example") == 403
    assert request(mlflow, "/") == 200
    own = {"Origin": mlflow, "Content-Type": "application/json"}
    assert request(mlflow, "/ajax-api/2.0/mlflow/experiments/search?max_results=1", **own) == 200


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM])
def test_serve_stops_servers_on_each_signal(
    project: ToyProject, serve: Callable[..., "subprocess.Popen[str]"], number: signal.Signals
) -> None:
    serving = serve()
    addresses(serving)
    family = psutil.Process(serving.pid).children(recursive=True)
    commands = [" ".join(process.cmdline()) for process in family]
    assert {True} == {
        any(name in command for command in commands)
        for name in ("longreward.tasks.prefect_server", "mlflow", "longreward.tasks.supervise")
    }
    serving.send_signal(number)
    serving.communicate(timeout=120)
    psutil.wait_procs(family, timeout=120)
    assert not alive(family)
