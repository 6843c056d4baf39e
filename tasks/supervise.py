"""Run a command that ends with the process that started it, however that process ends.

    python -m longreward.tasks.supervise <command> …

The parent holds the write end of this process's standard input and writes nothing. When the parent ends, even by
SIGKILL, the kernel closes the pipe, and this process, the leader of a process group, terminates the group. This works
on Linux and macOS; PR_SET_PDEATHSIG exists on Linux alone, and fires when the parent's *thread* ends.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

TERMINATE_TIMEOUT_S = 15.0  # between SIGTERM and SIGKILL
GROUP_EXIT_S = 0.5  # for the command's own children to follow it

_orphaned = threading.Event()


def supervise(command: Sequence[str]) -> int:
    """Return the command's exit code; does not return if the parent has ended."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # signals to the group are for the command; this process follows it
    # close_fds=False hands on the file descriptors that the parent has passed, and no others.
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, close_fds=False)
    threading.Thread(target=_wait_for_parent, daemon=True).start()
    code = process.wait()
    if _orphaned.is_set():
        time.sleep(GROUP_EXIT_S)
        os.killpg(0, signal.SIGKILL)
    return code


def _wait_for_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # not sys.stdin.read(), whose lock would crash the interpreter at exit
    _orphaned.set()
    os.killpg(0, signal.SIGTERM)
    time.sleep(TERMINATE_TIMEOUT_S)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    exit_code = supervise(sys.argv[1:])
    sys.exit(exit_code if exit_code >= 0 else 128 - exit_code)
