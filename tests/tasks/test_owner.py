"""On whose behalf a process works."""

import os
import subprocess
import sys
from pathlib import Path

from longreward.tasks.processes import ProcessRef, parent_process, this_process

ROOT = Path(__file__).resolve().parents[2]


def test_an_owner_is_written_and_read_back() -> None:
    here = this_process()
    assert ProcessRef.read(str(here)) == here
    assert here.pid == os.getpid()
    assert here.alive


def test_a_process_that_ended_or_was_started_at_another_time_is_not_alive() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not ProcessRef(ended.pid, this_process().started).alive
    assert not ProcessRef(os.getpid(), this_process().started - 1000).alive


def test_the_dvc_command_above_a_process_owns_it_and_without_one_it_owns_itself(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text("from tasks.parent_process import owner; print(owner().pid)")
    (tmp_path / "dvc").write_text(
        "import os, subprocess, sys\n"
        "print(os.getpid(), flush=True)\n"
        "subprocess.run(['sh', '-c', f'{sys.executable} child.py; true'])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "dvc"]
    printed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True).stdout
    dvc, found = printed.split()
    assert found == dvc
    assert parent_process() == this_process()
