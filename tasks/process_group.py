"""Commands in a process group of their own, which ends as one: a SIGTERM to `dvc` alone leaves its training alive.

A command whose starter is killed outright is nobody's to end; it looks for itself (`end_with`).
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

import psutil

from longreward.tasks.parent_process import ParentProcess

END_LIMIT_S = 15.0  # between the polite signal and the last one: a training may be writing its checkpoint
LOOK_EVERY_S = 0.5
KEPT_LINES = 40


@dataclass(frozen=True)
class Ended:
    """How a command ended; `words` are the last lines that it printed, where they did not go to a terminal."""

    code: int
    words: str


async def run_in_group(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    quiet: bool = False,
    worth_showing: Callable[[str], bool] = lambda line: True,
) -> Ended:
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
        return Ended(await process.wait(), "\n".join(words))
    finally:
        end_group(process.pid)


def end_group(leader: int) -> None:
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


def end_with(*others: ParentProcess) -> None:
    """Ends this process as a SIGTERM does, from here on, soon after one of the `others` is gone."""
    threading.Thread(target=_look_after, args=(others,), daemon=True).start()


def _look_after(others: Sequence[ParentProcess]) -> None:
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
