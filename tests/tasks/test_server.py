"""The Prefect server of a state folder."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from longreward.errors import ConfigError, StateError
from longreward.tasks import prefect_server as module
from longreward.tasks.prefect_server import START_LIMIT, PrefectServer, PrefectUnavailable, check_server, prefect_server
from longreward.tasks.processes import ProcessRef

ROOT = Path(__file__).resolve().parents[2]
CLIENT = """
import sys, time
from longreward.tasks.server import prefect_server
print(prefect_server().url, flush=True)
sys.stdin.readline()
"""


def client(state: Path, **environment: str) -> "subprocess.Popen[str]":
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


def keepers(state: Path) -> list[psutil.Process]:
    """The keeper processes of a state folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if "longreward.tasks.prefect_server" in (process.info["cmdline"] or []):
            try:
                if process.environ().get("LONGREWARD_STATE") == str(state):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
    return found


@pytest.mark.slow
def test_three_who_come_at_once_share_one_server_that_ends_after_the_last_though_one_is_killed(tmp_path: Path) -> None:
    three = [client(tmp_path) for _ in range(3)]
    urls = {address(process) for process in three}
    assert len(urls) == 1
    with urllib.request.urlopen(f"{urls.pop()}/health") as answer:
        assert answer.read() == b"true"

    three[0].kill()
    three[1].communicate("\n")
    (keeper,) = keepers(tmp_path)
    leases = tmp_path / "prefect/leases"
    while len(list(leases.iterdir())) > 1:  # the keeper removes those of the two
        assert keeper.is_running()
        time.sleep(0.05)
    assert [lease.name.partition("-")[0] for lease in leases.iterdir()] == [str(three[2].pid)]
    assert keeper.is_running()
    three[2].communicate("\n")
    three[0].communicate()
    keeper.wait(timeout=60)
    assert not (tmp_path / "prefect/server.json").exists()


def test_a_configured_server_is_used_and_none_is_started(tmp_path: Path) -> None:
    using = client(tmp_path, PREFECT_API_URL="http://prefect.example/api")
    assert address(using) == "http://prefect.example/api"
    using.communicate("\n")
    assert keepers(tmp_path) == []


def test_a_note_of_a_server_that_died_is_not_believed(tmp_path: Path) -> None:
    from longreward.tasks.prefect_server import _running

    gone = ProcessRef(pid=1, started=0.0)
    (tmp_path / "server.json").write_text(f'{{"url": "http://127.0.0.1:1/api", "keeper": "{gone}"}}')
    assert _running(tmp_path) is None


@pytest.fixture
def no_server(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No server is configured, and none runs for this state folder."""

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with temporary_settings(restore_defaults={PREFECT_API_URL, PREFECT_API_AUTH_STRING}):
        yield


@pytest.mark.usefixtures("no_server")
def test_a_server_that_ends_while_it_starts_is_told_with_its_last_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_CLIENT_MAX_RETRIES", "many")  # which Prefect refuses
    with pytest.raises(StateError, match=r"(?s)ended with code 1 while it started.*unable to parse string"):
        prefect_server()


@pytest.mark.usefixtures("no_server")
def test_the_wait_for_a_slow_server_is_logged_and_has_a_limit_that_is_named(
    own_folders: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LOG_EVERY_S", 0.0)
    monkeypatch.setenv(START_LIMIT, "0.2")
    with pytest.raises(StateError, match=rf"was not ready after 0.2 s; set {START_LIMIT} to allow more.*output.*none"):
        prefect_server()
    assert "the Prefect server is starting (0 of at most 0.2 s)" in caplog.messages
    assert keepers(own_folders / "state") == []


@pytest.mark.parametrize("value", ["soon", "0", "-1", "inf", "nan"])
@pytest.mark.usefixtures("no_server")
def test_a_limit_that_is_no_number_of_seconds_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(START_LIMIT, value)
    with pytest.raises(ConfigError, match=f"{START_LIMIT} is '{value}'"):
        prefect_server()


async def test_a_server_that_wants_a_login_says_which_variable_lacks_it_or_is_wrong(prefect_server: str) -> None:
    with pytest.raises(PrefectUnavailable, match="asks for a login, and PREFECT_API_AUTH_STRING is not set"):
        await check_server(PrefectServer(prefect_server))
    with pytest.raises(PrefectUnavailable, match="refuses the login in PREFECT_API_AUTH_STRING") as refused:
        await check_server(PrefectServer(prefect_server, "anna:hush"))
    assert "hush" not in str(refused.value)
    await check_server(PrefectServer(prefect_server, PREFECT_API_AUTH_STRING.value()))


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/api", "http://anna:hush@127.0.0.1:9/api", "127.0.0.1:4200", "ftp://host/api"]
)
async def test_an_address_without_a_server_is_one_clear_line_without_its_password(url: str) -> None:
    with pytest.raises(PrefectUnavailable, match=r"cannot be used: .*; start it, correct PREFECT_API_URL, or") as away:
        await check_server(PrefectServer(url))
    assert "\n" not in str(away.value)
    assert "hush" not in str(away.value)


def test_a_program_tells_of_a_server_that_is_away_in_one_line(tmp_path: Path) -> None:
    program = "from tasks.program import run_program; run_program(None)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("PrefectUnavailable: the Prefect server at http://127.0.0.1:9/api cannot be used")
    assert done.stderr.count("\n") == 1
