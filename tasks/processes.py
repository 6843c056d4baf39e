"""Process identity, commands in process groups, and children that end with their parent.

A SIGTERM to `dvc` alone leaves the training that it started running, so each command gets a process group of its own,
which is terminated as a whole.
"""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import psutil

TERMINATE_TIMEOUT_S = 15.0  # between SIGTERM and SIGKILL: a training may be writing its checkpoint
POLL_INTERVAL_S = 0.5
TAIL_LINES = 40
LINE_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True)
class ProcessRef:
    """Identify a process by pid and start time, since the system reuses pids."""

    pid: int
    started: float

    def __str__(self) -> str:
        return f"{self.pid}-{self.started:.2f}"

    @classmethod
    def of(cls, process: psutil.Process) -> "ProcessRef":
        """Return the reference to a running process."""
        return cls(process.pid, round(process.create_time(), 2))

    @classmethod
    def parse(cls, text: str) -> "ProcessRef":
        """Return the reference that `str` wrote; raises ValueError."""
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
        """The command line; empty if the process has ended or belongs to another user."""
        try:
            return psutil.Process(self.pid).cmdline()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return []


def this_process() -> ProcessRef:
    """Return the reference to this process."""
    return ProcessRef.of(psutil.Process())


def owner_process() -> ProcessRef:
    """Return the nearest `dvc` command above this process, else this process.

    The stages of one `dvc repro` have this process in common and share a parent run in MLflow through it.
    """
    process = psutil.Process()
    for parent in process.parents():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if any(map(is_dvc, parent.cmdline()[:3])):
                return ProcessRef.of(parent)
    return ProcessRef.of(process)


def is_dvc(word: str) -> bool:
    """Whether a word of a command line shows that it is DVC's: `dvc`, `python …/dvc`, `python -m dvc`."""
    return Path(word).stem == "dvc" or word in ("longreward.tasks.quiet_dvc", "longreward.tasks.fork_server")


@dataclass(frozen=True)
class CommandResult:
    """The exit code of a command and the last lines that it printed, except those that went to a terminal."""

    code: int
    output: str


class GroupProcess(Protocol):
    """The leader of a process group: the part of asyncio.subprocess.Process that `run_in_group` uses."""

    @property
    def pid(self) -> int:
        """Its process id."""

    @property
    def stdout(self) -> asyncio.StreamReader | None:
        """What it prints."""

    async def wait(self) -> int:
        """Return its exit code once it has ended."""


async def start_program(command: Sequence[str], environment: Mapping[str, str], *, direct: bool) -> GroupProcess:
    """Start a program; with `direct`, its stderr is that of this process, else its stdout."""
    return await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=None if direct else subprocess.STDOUT,
        limit=LINE_LIMIT_BYTES,
        start_new_session=True,
    )


async def run_in_group(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    quiet: bool = False,
    show_line: Callable[[str], bool] = lambda line: True,
    start: Callable[..., Awaitable[GroupProcess]] = start_program,
) -> CommandResult:
    """Run `command` to its end in a process group of its own; terminate the group on cancellation or error.

    Args:
        environment: variables on top of those of this process.
        quiet: print nothing. Otherwise the lines for which `show_line` is true are printed, and on a terminal stderr
            goes there directly, so that progress bars work.
        start: starts the command, with the signature of `start_program`.
    """
    direct = sys.stderr.isatty() and not quiet
    process = await start(command, environment, direct=direct)
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    try:
        assert process.stdout is not None
        async for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip()
            tail.append(line)
            if not quiet and show_line(line):
                print(line, flush=True)
        return CommandResult(await process.wait(), "\n".join(tail))
    finally:
        terminate_group(process.pid)


def terminate_group(leader: int) -> None:
    """Send SIGTERM to a process group, then SIGKILL after TERMINATE_TIMEOUT_S.

    This blocks on purpose: an event loop that is being closed may not come back to a coroutine.
    """
    number = signal.SIGTERM
    while _group_alive(leader):
        with suppress(ProcessLookupError):
            os.killpg(leader, number)
        deadline = time.monotonic() + TERMINATE_TIMEOUT_S
        while _group_alive(leader) and time.monotonic() < deadline:
            time.sleep(0.05)
        number = signal.SIGKILL


def _group_alive(group: int) -> bool:
    """Whether a process of the group runs; zombies do not count, which `os.killpg(group, 0)` would report."""
    for process in psutil.process_iter(["status"]):
        with suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                return True
    return False


def start_supervised(
    command: Sequence[str], *, output: IO[bytes] | int, environment: Mapping[str, str], pass_fds: Sequence[int] = ()
) -> "subprocess.Popen[bytes]":
    """Start a command that ends with this process, even if this process is killed (see `tasks.supervise`).

    The command is alive as long as the returned object: its standard input is the pipe by which the supervisor
    notices the end of this process. `environment` replaces that of this process.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "longreward.tasks.supervise", *command],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT,
        pass_fds=pass_fds,
        start_new_session=True,  # Ctrl-C is for this process, which still needs the command while it ends
    )


def exit_with(owner: ProcessRef, *, terminator: ProcessRef | None = None) -> None:
    """Let this process end as after a SIGTERM, soon after `owner` or `terminator` has ended.

    `terminator` is the process that terminates the group of `owner` and this process. While it is alive, the end of
    `owner` is probably its work, and a second SIGTERM would end a training before its checkpoint is complete.

    A stage cannot use `start_supervised`: DVC, which starts it, passes no file descriptors on.
    """

    def wait() -> None:
        while owner.alive and (terminator is None or terminator.alive):
            time.sleep(POLL_INTERVAL_S)
        deadline = time.monotonic() + TERMINATE_TIMEOUT_S
        while terminator is not None and terminator.alive and time.monotonic() < deadline:
            time.sleep(POLL_INTERVAL_S)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(TERMINATE_TIMEOUT_S)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
