"""Commands in a group of their own."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from longreward.tasks import processes
from longreward.tasks.processes import ProcessRef, run_in_group

# Starts a child of its own, notes both process numbers once that one has got through its prelude, and waits.
FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen(
    [sys.executable, "-c", "{prelude}; print(flush=True); import time; time.sleep(600)"], stdout=subprocess.PIPE
)
child.stdout.readline()
open("pids.part", "w").write(f"{{os.getpid()}} {{child.pid}}")
os.rename("pids.part", "pids")
time.sleep(600)
"""


async def cancelled_when_running(prelude: str) -> list[int]:
    """Cancels a family of processes once both run; gives their numbers."""
    running = asyncio.create_task(
        run_in_group([sys.executable, "-c", FAMILY.format(prelude=prelude)], environment={}, quiet=True)
    )
    while not Path("pids").exists():  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    return [int(pid) for pid in Path("pids").read_text().split()]


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


async def test_cancelling_ends_the_command_and_what_it_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    started = await cancelled_when_running("pass")
    assert not any(alive(pid) for pid in started)


async def test_a_process_that_ignores_the_polite_signal_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes, "END_LIMIT_S", 0.5)
    started = await cancelled_when_running("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    while any(alive(pid) for pid in started):  # noqa: ASYNC110  # the signal is sent; it takes a moment to arrive
        await asyncio.sleep(0.02)


async def test_a_command_ends_with_its_code_and_its_last_words() -> None:
    said = "import sys; [print(i) for i in range(100)]; print('no', file=sys.stderr); sys.exit(3)"
    ended = await run_in_group([sys.executable, "-u", "-c", said], environment={}, quiet=True)
    assert ended.code == 3
    assert ended.words.splitlines() == [*(str(i) for i in range(61, 100)), "no"]


async def test_the_environment_is_added_to_that_of_this_process() -> None:
    show = "import os; print(os.environ['A_WORD'], bool(os.environ['PATH']))"
    ended = await run_in_group([sys.executable, "-c", show], environment={"A_WORD": "heron"}, quiet=True)
    assert ended.words == "heron True"


async def test_lines_that_are_not_worth_showing_are_kept_for_errors_alone(capfd: pytest.CaptureFixture[str]) -> None:
    said = "print('Running stage'); print('Use `dvc push`')"
    ended = await run_in_group(
        [sys.executable, "-c", said], environment={}, worth_showing=lambda line: not line.startswith("Use")
    )
    assert capfd.readouterr().out == "Running stage\n"
    assert ended.words == "Running stage\nUse `dvc push`"


ORPHAN = """
import sys, time
from longreward.tasks import processes
from longreward.tasks.owner import Owner

class Seen(Owner):
    @property
    def alive(self):
        print("looked", flush=True)
        return super().alive

processes.LOOK_EVERY_S = 0.01
processes.end_with(Seen.read(sys.argv[1]))
time.sleep(600)
"""


def test_a_process_ends_soon_after_the_one_that_it_works_for_is_killed() -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    owner = ProcessRef(other.pid, round(psutil.Process(other.pid).create_time(), 2))
    orphan = subprocess.Popen([sys.executable, "-c", ORPHAN, str(owner)], stdout=subprocess.PIPE, text=True)
    try:
        assert orphan.stdout is not None
        for _ in range(3):  # it looks again and again, and goes on while the other one lives
            assert orphan.stdout.readline() == "looked\n"
        assert orphan.poll() is None
        other.kill()
        other.wait()
        orphan.communicate()
        assert orphan.returncode == -signal.SIGTERM
    finally:
        orphan.kill()
        other.kill()
