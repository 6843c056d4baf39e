"""The Prefect server that a process starts for itself."""

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from longreward.errors import StateError
from longreward.tasks import prefect_server as module
from longreward.tasks.prefect_server import PrefectServer, PrefectUnavailable, check_server, prefect_server

ROOT = Path(__file__).resolve().parents[2]
CLIENT = """
import sys, time
from longreward.tasks.prefect_server import prefect_server
print(prefect_server().url, flush=True)
sys.stdin.readline()
"""


def client(state: Path, **environment: str) -> "subprocess.Popen[str]":
    """Start a process that prints the address of its server, and ends after a line of input."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT],
        env={**kept, "PYTHONPATH": str(ROOT), "LONGREWARD_STATE": str(state), **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def address(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def servers(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


@pytest.mark.slow
def test_each_process_has_server_that_ends_with_it(tmp_path: Path) -> None:
    killed, finished = client(tmp_path), client(tmp_path)  # on one new database
    urls = [address(process) for process in (killed, finished)]
    assert len(set(urls)) == 2
    for url in urls:
        with urllib.request.urlopen(f"{url}/health") as reply:
            assert reply.read() == b"true"
    started = servers(killed) + servers(finished)
    killed.kill()
    killed.communicate()
    finished.communicate("\n")
    psutil.wait_procs(started)
    for url in urls:
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(f"{url}/health")


def test_configured_server_used(tmp_path: Path) -> None:
    process = client(tmp_path, PREFECT_API_URL="http://prefect.example/api")
    assert address(process) == "http://prefect.example/api"
    assert servers(process) == []
    process.communicate("\n")


@pytest.fixture
def no_server(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No server is configured."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with temporary_settings(restore_defaults={PREFECT_API_URL, PREFECT_API_AUTH_STRING}):
        yield


@pytest.mark.usefixtures("no_server")
def test_server_that_ends_while_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_CLIENT_MAX_RETRIES", "many")  # which Prefect refuses
    with pytest.raises(StateError, match=r"(?s)ended with code 1 while it started.*unable to parse string"):
        prefect_server()


@pytest.mark.usefixtures("no_server")
def test_slow_server_start_logged_and_limited(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "longreward")
    before = psutil.Process().children(recursive=True)
    monkeypatch.setattr(module, "LOG_INTERVAL_S", 0.05)
    monkeypatch.setattr(module, "START_LIMIT_S", 0.2)
    with pytest.raises(StateError, match=r"was not ready after 0.2 s.*output.*none"):
        prefect_server()
    (message, *_) = [line for line in caplog.messages if "waits for the Prefect server to start" in line]
    assert message.endswith("of at most 0.2 s")
    assert set(psutil.Process().children(recursive=True)) <= set(before)


async def test_check_server_missing_or_wrong_login(prefect_server: str) -> None:
    with pytest.raises(PrefectUnavailable, match="asks for a login, and PREFECT_API_AUTH_STRING is not set"):
        await check_server(PrefectServer(prefect_server))
    with pytest.raises(PrefectUnavailable, match="refuses the login in PREFECT_API_AUTH_STRING") as refused:
        await check_server(PrefectServer(prefect_server, "anna:hush"))
    assert "hush" not in str(refused.value)
    await check_server(PrefectServer(prefect_server, PREFECT_API_AUTH_STRING.value()))


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/api", "http://anna:hush@127.0.0.1:9/api", "127.0.0.1:4200", "ftp://host/api"]
)
async def test_check_server_unreachable_hides_password(url: str) -> None:
    with pytest.raises(PrefectUnavailable, match=r"cannot be used: .*; start it, correct PREFECT_API_URL, or") as away:
        await check_server(PrefectServer(url))
    assert "\n" not in str(away.value)
    assert "hush" not in str(away.value)


def test_run_as_program_unreachable_server(tmp_path: Path) -> None:
    program = "from longreward.tasks.flow_runner import run_as_program; run_as_program(None)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("longreward: error: the Prefect server at http://127.0.0.1:9/api cannot be used")
    assert done.stderr.count("\n") == 1
