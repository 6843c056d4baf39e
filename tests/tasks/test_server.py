"""The Prefect server of a state folder."""

import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from tasks.owner import Owner

ROOT = Path(__file__).resolve().parents[2]
CLIENT = """
import sys, time
from tasks.server import prefect_url
print(prefect_url(), flush=True)
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
        if "tasks.server" in (process.info["cmdline"] or []):
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
    time.sleep(5)
    assert len(keepers(tmp_path)) == 1  # one is still there
    three[2].communicate("\n")
    three[0].communicate()
    deadline = time.monotonic() + 15
    while keepers(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert keepers(tmp_path) == []
    assert not (tmp_path / "prefect/server.json").exists()


def test_a_configured_server_is_used_and_none_is_started(tmp_path: Path) -> None:
    using = client(tmp_path, PREFECT_API_URL="http://prefect.example/api")
    assert address(using) == "http://prefect.example/api"
    using.communicate("\n")
    assert keepers(tmp_path) == []


def test_a_note_of_a_server_that_died_is_not_believed(tmp_path: Path) -> None:
    from tasks.server import _running

    gone = Owner(pid=1, started=0.0)
    (tmp_path / "server.json").write_text(f'{{"url": "http://127.0.0.1:1/api", "keeper": "{gone}"}}')
    assert _running(tmp_path) is None
