"""On whose behalf a process works: the `dvc` command that started it, or nobody but itself.

Seven stages of one `dvc repro` share a Prefect server and an MLflow parent; what they have in common is that process.
"""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class ProcessRef:
    """A process for all time: its number alone comes back in another one's hands."""

    pid: int
    started: float

    def __str__(self) -> str:
        return f"{self.pid}-{self.started:.2f}"

    @classmethod
    def read(cls, text: str) -> "ProcessRef":
        """The inverse of str; raises ValueError."""
        pid, _, started = text.partition("-")
        return cls(int(pid), float(started))

    @property
    def alive(self) -> bool:
        """Whether exactly this process still runs."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 0.02
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    @property
    def command(self) -> list[str]:
        """The words that started it; none where it is gone or another user's."""
        try:
            return psutil.Process(self.pid).cmdline()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return []


def parent_process() -> ProcessRef:
    """The nearest `dvc` command above this process, else this process."""
    here = psutil.Process()
    above = next((process for process in here.parents() if _is_dvc(process)), here)
    return ProcessRef(above.pid, round(above.create_time(), 2))


def this_process() -> ProcessRef:
    """This process, whoever started it."""
    here = psutil.Process()
    return ProcessRef(here.pid, round(here.create_time(), 2))


def _is_dvc(process: psutil.Process) -> bool:
    """`dvc repro`, `python …/dvc repro` or `python -m dvc repro`."""
    try:
        return any(Path(word).stem == "dvc" for word in process.cmdline()[:3])
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


# Commands in a process group of their own, which ends as one: a SIGTERM to `dvc` alone leaves its training alive.
#
# A command whose starter is killed outright is nobody's to end; it looks for itself (`end_with`).


END_LIMIT_S = 15.0  # between the polite signal and the last one: a training may be writing its checkpoint
LOOK_EVERY_S = 0.5
KEPT_LINES = 40


@dataclass(frozen=True)
class CommandResult:
    """How a command ended; `words` are the last lines that it printed, where they did not go to a terminal."""

    code: int
    words: str


async def run_in_group(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    quiet: bool = False,
    worth_showing: Callable[[str], bool] = lambda line: True,
) -> CommandResult:
    """Runs `command` to its end and, unless `quiet`, shows the lines that it prints and that are `worth_showing`.

    On a terminal its stderr goes there directly, so that its progress bars move. On cancellation, or any error here,
    its whole group ends."""
    direct = sys.stderr.isatty() and not quiet
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=None if direct else subprocess.STDOUT,
        limit=1 << 20,
        start_new_session=True,
    )
    words: deque[str] = deque(maxlen=KEPT_LINES)
    try:
        assert process.stdout is not None
        async for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip()
            words.append(line)
            if not quiet and worth_showing(line):
                print(line, flush=True)
        return CommandResult(await process.wait(), "\n".join(words))
    finally:
        terminate_group(process.pid)


def terminate_group(leader: int) -> None:
    """Ends every process of the group. It blocks, for at most a quarter of a minute: an event loop that is being torn
    down cannot be relied on to come back to it."""
    number = signal.SIGTERM
    while _alive(leader):
        with suppress(ProcessLookupError):
            os.killpg(leader, number)
        wait_until = time.monotonic() + END_LIMIT_S
        while _alive(leader) and time.monotonic() < wait_until:
            time.sleep(0.05)
        number = signal.SIGKILL


def exit_with(*others: ProcessRef) -> None:
    """Ends this process as a SIGTERM does, from here on, soon after one of the `others` is gone."""
    threading.Thread(target=_look_after, args=(others,), daemon=True).start()


def _look_after(others: Sequence[ProcessRef]) -> None:
    while all(other.alive for other in others):
        time.sleep(LOOK_EVERY_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(END_LIMIT_S)
    os._exit(128 + signal.SIGTERM)


def _alive(group: int) -> bool:
    """Whether a process of the group still runs; one that ended and awaits its parent does not count."""
    for process in psutil.process_iter(["status"]):
        with suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                return True
    return False
