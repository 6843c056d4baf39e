"""DVC's file of locks, with a real DVC repository."""

import asyncio
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from longreward.tasks import dvc_command
from longreward.tasks.dvc_command import LOCKS, lock_problem, repair_locks, wait_for_dvc

DVC = [sys.executable, "-m", "dvc"]
GRAPH = """
stages:
  copy: {cmd: cp a b, deps: [a], outs: [b]}
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    subprocess.run([*DVC, "init", "-q", "--no-scm"], check=True)
    (tmp_path / "dvc.yaml").write_text(GRAPH)
    (tmp_path / "a").write_text("a")
    LOCKS.parent.mkdir(parents=True, exist_ok=True)
    return tmp_path


def repro() -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*DVC, "repro"], capture_output=True, text=True, check=False)


def locks(process: int, command: str = "/bin/dvc repro") -> str:
    holder = {"pid": process, "cmd": command}
    return json.dumps({"write": {str(Path("b").resolve()): holder}, "read": {str(Path("a").resolve()): [holder]}})


@pytest.mark.parametrize(
    ("content", "problem"), [("", "is empty"), ('{"write": {"/x', "is damaged"), ("[]", "is damaged")]
)
def test_a_file_that_an_interrupted_run_left_half_written_is_repaired(
    repository: Path, content: str, problem: str
) -> None:
    LOCKS.write_text(content)
    assert problem in str(lock_problem())
    assert problem in str(repair_locks())
    assert lock_problem() is None
    assert not LOCKS.exists()


def test_dvc_itself_fails_on_an_empty_file_and_goes_on_after_the_repair(repository: Path) -> None:
    LOCKS.write_text("")
    assert "JSON structure is corrupted" in repro().stderr
    repair_locks()
    done = repro()
    assert done.returncode == 0, done.stderr
    assert lock_problem() is None


def test_a_lock_whose_process_number_went_to_another_program_is_removed_and_dvc_goes_on(repository: Path) -> None:
    LOCKS.write_text(locks(os.getpid()))  # this process is no DVC
    assert "is busy" in repro().stderr
    assert f"/bin/dvc repro (process {os.getpid()})" in str(repair_locks())
    assert json.loads(LOCKS.read_text()) == {"write": {}, "read": {}}
    assert repro().returncode == 0


def test_the_locks_of_a_living_command_stay(repository: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as living:
        LOCKS.write_text(locks(living.pid, "sleep 60"))
        before = LOCKS.read_text()
        assert repair_locks() is None
        assert LOCKS.read_text() == before
        living.kill()
    assert "processes that are gone: sleep 60" in str(lock_problem())


def test_nothing_is_made_where_nothing_is_wrong(tmp_path: Path) -> None:
    assert repair_locks(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


async def test_another_dvc_command_is_waited_for_and_named(
    repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dvc_command, "LOOK_AGAIN_S", 0.001)
    caplog.set_level(logging.INFO, "longreward.tasks.dvc_command")
    other = await asyncio.create_subprocess_exec("sleep", "60")
    LOCKS.write_text(locks(other.pid, "sleep 60"))
    waiting = asyncio.create_task(wait_for_dvc())
    while not caplog.messages:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    assert caplog.messages[0] == f"waits for another DVC command to end: sleep 60 (process {other.pid})"
    assert not waiting.done()
    other.kill()
    await other.wait()
    await waiting
