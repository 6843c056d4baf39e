"""Commands in a process group of their own, which ends as one: a SIGTERM to `dvc` alone leaves its training alive."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

END_LIMIT_S = 15.0  # between the polite signal and the last one: a training may be writing its checkpoint
KEPT_LINES = 40


@dataclass(frozen=True)
class Ended:
    """How a command ended; `words` are the last lines that it printed, where they did not go to a terminal."""

    code: int
    words: str


async def run_in_group(command: Sequence[str], *, environment: Mapping[str, str], quiet: bool = False) -> Ended:
    """Runs `command` to its end and, unless `quiet`, shows what it prints (on a terminal it writes there itself, so
    that its progress bars move). On cancellation, or any error here, its whole group ends."""
    shown = sys.stderr.isatty() and not quiet
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=None if shown else subprocess.PIPE,
        stderr=None if shown else subprocess.STDOUT,
        start_new_session=True,
    )
    words: deque[str] = deque(maxlen=KEPT_LINES)
    try:
        if process.stdout:
            async for line in process.stdout:
                words.append(line.decode(errors="replace").rstrip())
                if not quiet:
                    print(words[-1], flush=True)
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


def _alive(group: int) -> bool:
    """Whether a process of the group still runs; one that ended and awaits its parent does not count."""
    for process in psutil.process_iter(["status"]):
        with suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                return True
    return False
