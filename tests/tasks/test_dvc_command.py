"""DVC, on a real repository in a temporary folder."""

import asyncio
import fcntl
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from longreward.errors import ConfigError, DataError
from longreward.tasks import dvc_command
from longreward.tasks.dvc_command import LOCKS, add_raw, dvc, lock_problem, push, repair_locks, reproduce, wait_for_dvc
from longreward.tasks.dvc_files import data_hashes, stage_entries

GRAPH = """
stages:
  shout:
    cmd: python shout.py
    params: [shout.loud, policy]
    deps: [data/raw, shout.py]
    outs: [data/loud]
    metrics:
      - metrics/shout.json: {cache: false}
"""
SHOUT = """
import os
os.makedirs("data/loud"); os.makedirs("metrics", exist_ok=True)
open("data/loud/a.txt", "w").write(open("data/raw/a.txt").read().upper())
open("metrics/shout.json", "w").write("{}")
"""


@pytest.fixture
def repository(workspace: Path) -> Path:
    """A project with one stage and raw data that DVC does not know yet."""
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, check=True)
    files = {
        "dvc.yaml": GRAPH,
        "shout.py": SHOUT,
        "params.yaml": "shout: {loud: 1}\npolicy: {window: 8}\n",
        "data/raw/a.txt": "heron\n",
    }
    for name, text in files.items():
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).write_text(text)
    return workspace


def test_stage_entries(repository: Path) -> None:
    entry = stage_entries()["shout"]
    assert entry.inputs == (Path("data/raw"), Path("shout.py"))
    assert entry.sections == ("shout", "policy")
    assert entry.outputs == (Path("data/loud"), Path("metrics/shout.json"))


def test_stage_entries_without_dvc_yaml(workspace: Path) -> None:
    with pytest.raises(ConfigError, match=r"dvc\.yaml is not here"):
        stage_entries()


async def test_add_raw_new_changed_and_missing_data(
    repository: Path,
) -> None:
    assert await add_raw() is True
    first = data_hashes((Path("data/raw"), Path("data/raw/a.txt"), Path("shout.py")))
    assert await add_raw() is False

    Path("data/raw/a.txt").unlink()
    Path("data/raw/a.txt").write_text("egret\n")
    assert await add_raw() is True
    second = data_hashes((Path("data/raw"),))

    assert set(first) == {"data/raw", "data/raw/a.txt"}  # code has its commit, not a hash of DVC's
    assert first["data/raw"] == first["data/raw/a.txt"] != second["data/raw"]

    Path("data/raw/a.txt").unlink()
    Path("data/raw").rmdir()
    assert await add_raw() is True
    assert Path("data/raw/a.txt").read_text() == "egret\n"


async def test_add_raw_without_data(repository: Path) -> None:
    Path("data/raw/a.txt").unlink()
    Path("data/raw").rmdir()
    with pytest.raises(DataError, match=r"data/raw is missing.*make setup"):
        await add_raw()


async def test_reproduce_updates_dvc_status_and_hashes(repository: Path) -> None:
    await add_raw()
    assert (await reproduce("shout", force=False, environment={})).code == 0
    assert Path("data/loud/a.txt").read_text() == "HERON\n"
    assert data_hashes((Path("data/loud"),))["data/loud"].endswith(".dir")
    again = await reproduce("shout", force=False, environment={})
    assert "up to date" in again.output
    forced = await reproduce("shout", force=True, environment={})
    assert "up to date" not in forced.output  # DVC's line about the stage that it runs is hidden
    assert forced.code == 0


async def test_reproduce_while_another_dvc_command_runs(
    repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await add_raw()
    monkeypatch.setattr(dvc_command, "POLL_INTERVAL_S", 0.0)
    with Path(".dvc/tmp/lock").open("a") as lock:  # noqa: ASYNC230  # as `dvc push` holds it
        fcntl.flock(lock, fcntl.LOCK_EX)
        reproducing = asyncio.create_task(reproduce("shout", force=False, environment={}))
        while "another DVC command is at work" not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert (await reproducing).code == 0
    assert Path("data/loud/a.txt").read_text() == "HERON\n"


async def test_reproduce_failed_stage(repository: Path) -> None:
    Path("shout.py").write_text("import sys; sys.exit('no voice')")
    ended = await reproduce("shout", force=False, environment={})
    assert ended.code != 0
    assert "no voice" in ended.output
    assert "ERROR: failed to reproduce 'shout'" in ended.output


async def test_push_with_and_without_remote(repository: Path, tmp_path: Path) -> None:
    await add_raw()
    assert await push() is False
    remote = tmp_path / "remote"
    await dvc("remote", "add", "-d", "here", str(remote))
    assert await push() is True
    assert len([file for file in remote.rglob("*") if file.is_file()]) == 2  # a.txt and the list of the folder


COPY_GRAPH = """
stages:
  copy: {cmd: cp a b, deps: [a], outs: [b]}
"""


@pytest.fixture
def lock_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    subprocess.run([*dvc_command.DVC, "init", "-q", "--no-scm"], check=True)
    (tmp_path / "dvc.yaml").write_text(COPY_GRAPH)
    (tmp_path / "a").write_text("a")
    LOCKS.parent.mkdir(parents=True, exist_ok=True)
    return tmp_path


def repro() -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*dvc_command.DVC, "repro"], capture_output=True, text=True, check=False)


def wait_for_command_line(process: int) -> None:
    """Wait until the process has a command line: between its exec and that moment, /proc shows none."""
    while not psutil.Process(process).cmdline():
        time.sleep(0.001)


def locks(process: int, command: str = "/bin/dvc repro") -> str:
    holder = {"pid": process, "cmd": command}
    return json.dumps({"write": {str(Path("b").resolve()): holder}, "read": {str(Path("a").resolve()): [holder]}})


@pytest.mark.parametrize(
    ("content", "problem"), [("", "is empty"), ('{"write": {"/x', "is damaged"), ("[]", "is damaged")]
)
def test_repair_unreadable_lock_file(lock_repository: Path, content: str, problem: str) -> None:
    LOCKS.write_text(content)
    assert problem in str(lock_problem())
    assert problem in str(repair_locks())
    assert lock_problem() is None
    assert json.loads(LOCKS.read_text()) == {"write": {}, "read": {}}


def test_dvc_works_after_repair_of_empty_lock_file(lock_repository: Path) -> None:
    LOCKS.write_text("")
    assert "JSON structure is corrupted" in repro().stderr
    repair_locks()
    done = repro()
    assert done.returncode == 0, done.stderr
    assert lock_problem() is None


def test_repair_lock_of_reused_pid(lock_repository: Path) -> None:
    LOCKS.write_text(locks(os.getpid()))  # this process is no DVC
    assert "is busy" in repro().stderr
    assert f"/bin/dvc repro (process {os.getpid()})" in str(repair_locks())
    assert json.loads(LOCKS.read_text()) == {"write": {}, "read": {}}
    assert repro().returncode == 0


def test_repair_keeps_locks_of_running_command(lock_repository: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as living:
        wait_for_command_line(living.pid)
        LOCKS.write_text(locks(living.pid, "sleep 60"))
        before = LOCKS.read_text()
        assert repair_locks() is None
        assert LOCKS.read_text() == before
        living.kill()
    assert "processes that are gone: sleep 60" in str(lock_problem())


def test_repair_without_lock_file(tmp_path: Path) -> None:
    assert repair_locks(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


async def test_wait_for_dvc_logs_other_command(
    lock_repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dvc_command, "POLL_INTERVAL_S", 0.001)
    caplog.set_level(logging.INFO, "longreward.tasks.dvc_command")
    other = await asyncio.create_subprocess_exec("sleep", "60")
    wait_for_command_line(other.pid)
    LOCKS.write_text(locks(other.pid, "sleep 60"))
    waiting = asyncio.create_task(wait_for_dvc())
    while not caplog.messages and not waiting.done():  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    assert caplog.messages[0] == f"waits for another DVC command to end: sleep 60 (process {other.pid})"
    assert not waiting.done()
    other.kill()
    await other.wait()
    await waiting
