"""Process identity, process groups, and children that end with their parent."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from longreward.tasks import processes
from longreward.tasks.processes import ProcessRef, owner_process, run_in_group, this_process

ROOT = Path(__file__).resolve().parents[2]

# Starts a child, writes both process ids once the child has run its prelude, and waits.
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


async def cancel_running_command(prelude: str) -> list[int]:
    """Cancel a command once it and its child run; return their process ids."""
    running = asyncio.create_task(
        run_in_group([sys.executable, "-c", FAMILY.format(prelude=prelude)], environment={}, quiet=True)
    )
    while not Path("pids").exists():  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    return [int(pid) for pid in Path("pids").read_text().split()]


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


async def test_cancelling_terminates_command_and_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pids = await cancel_running_command("pass")
    assert not any(is_alive(pid) for pid in pids)


async def test_process_ignoring_sigterm_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes, "TERMINATE_TIMEOUT_S", 0.5)
    pids = await cancel_running_command("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    while any(is_alive(pid) for pid in pids):  # noqa: ASYNC110  # the signal is sent; it takes a moment to arrive
        await asyncio.sleep(0.02)


async def test_result_has_exit_code_and_last_lines() -> None:
    code = "import sys; [print(i) for i in range(100)]; print('no', file=sys.stderr); sys.exit(3)"
    result = await run_in_group([sys.executable, "-u", "-c", code], environment={}, quiet=True)
    assert result.code == 3
    assert result.output.splitlines() == [*(str(i) for i in range(61, 100)), "no"]


async def test_environment_extends_that_of_process() -> None:
    show = "import os; print(os.environ['A_WORD'], bool(os.environ['PATH']))"
    result = await run_in_group([sys.executable, "-c", show], environment={"A_WORD": "heron"}, quiet=True)
    assert result.output == "heron True"


async def test_hidden_lines_stay_in_output(capfd: pytest.CaptureFixture[str]) -> None:
    code = "print('Running stage'); print('Use `dvc push`')"
    result = await run_in_group(
        [sys.executable, "-c", code], environment={}, show_line=lambda line: not line.startswith("Use")
    )
    assert capfd.readouterr().out == "Running stage\n"
    assert result.output == "Running stage\nUse `dvc push`"


ORPHAN = """
import sys, time
from longreward.tasks import processes
from longreward.tasks.processes import ProcessRef

class Observed(ProcessRef):
    @property
    def alive(self):
        print("polled", flush=True)
        return super().alive

processes.POLL_INTERVAL_S = 0.01
processes.exit_with(Observed.parse(sys.argv[1]))
time.sleep(600)
"""


def test_exit_with_killed_process() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    owner = ProcessRef.of(psutil.Process(process.pid))
    orphan = subprocess.Popen([sys.executable, "-c", ORPHAN, str(owner)], stdout=subprocess.PIPE, text=True)
    try:
        assert orphan.stdout is not None
        for _ in range(3):
            assert orphan.stdout.readline() == "polled\n"
        assert orphan.poll() is None
        process.kill()
        process.wait()
        orphan.communicate()
        assert orphan.returncode == -signal.SIGTERM
    finally:
        orphan.kill()
        process.kill()


PARENT = """
import os, sys
from longreward.tasks.processes import start_supervised
child = [sys.executable, "-c", "import os, time; print(os.getpid(), os.getppid(), flush=True); time.sleep(600)"]
process = start_supervised(child, output=1, environment=os.environ)
sys.stdin.readline()
os.kill(os.getpid(), int(sys.argv[1]))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, 0])
def test_supervised_command_ends_with_parent(number: int) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(int(number))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    command, supervisor = (psutil.Process(int(pid)) for pid in parent.stdout.readline().split())
    assert command.is_running()
    parent.communicate("\n")
    psutil.wait_procs([command, supervisor])


def test_process_ref_round_trips_through_text() -> None:
    here = this_process()
    assert ProcessRef.parse(str(here)) == here
    assert here.pid == os.getpid()
    assert here.alive


def test_process_ref_of_ended_or_other_process() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not ProcessRef(ended.pid, this_process().started).alive
    assert not ProcessRef(os.getpid(), this_process().started - 1000).alive


def test_owner_process(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(
        "from longreward.tasks.processes import owner_process; print(owner_process().pid)"
    )
    (tmp_path / "dvc").write_text(
        "import os, subprocess, sys\n"
        "print(os.getpid(), flush=True)\n"
        "subprocess.run(['sh', '-c', f'{sys.executable} child.py; true'])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "dvc"]
    printed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True).stdout
    dvc, owner = printed.split()
    assert owner == dvc
    assert owner_process() == this_process()
