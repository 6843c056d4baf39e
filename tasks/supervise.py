"""A command that ends with the process that it works for, however that one ends.

    python -m longreward.tasks.supervise <owner> <command> …

A stage that is killed outright can end nothing, so this process stands between: leader of a group of its own, it
starts the command there, looks whether the owner lives, and ends the group where it does not. A SIGTERM to the group is
for the command; this process goes after it, with its exit code.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from longreward.tasks.processes import ProcessRef

LOOK_EVERY_S = 0.5
END_LIMIT_S = 15.0  # between the polite signal and the last one


def watch(owner: ProcessRef, command: Sequence[str]) -> int:
    """The command's exit code; does not return where the owner ended."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # a handler, which the command does not inherit
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    while owner.alive:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(LOOK_EVERY_S)
    os.killpg(0, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_LIMIT_S)
    time.sleep(LOOK_EVERY_S)  # for the command's own children to follow it
    os.killpg(0, signal.SIGKILL)  # whoever is left, and this process
    return 128 + signal.SIGKILL


if __name__ == "__main__":
    code = watch(ProcessRef.read(sys.argv[1]), sys.argv[2:])
    sys.exit(code if code >= 0 else 128 - code)
