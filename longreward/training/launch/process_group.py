"""A command in a process group of its own that is gone at the end, however that comes, with all that it started."""

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psutil

END_LIMIT_S = 10.0  # between the polite signal and the last one; whoever ends this process waits for 15 s
KEPT_LINES = 200


@dataclass
class Group:
    """A command that runs; `words` are the last lines that it and its processes said."""

    leader: subprocess.Popen[str]
    words: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT_LINES))
    ending: bool = False

    def pass_on(self) -> None:
        """Shows what it says until it is ended: what it says of that is no news."""
        assert self.leader.stdout is not None
        for line in self.leader.stdout:
            self.words.append(line)
            if not self.ending:
                sys.stderr.write(line)

    def end(self) -> None:
        """Asks the leader, who asks its processes, some of which are in sessions of their own; kills what is left."""
        self.ending = True
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            leader = psutil.Process(self.leader.pid)
            all_of_them = [leader, *leader.children(recursive=True)]
            os.killpg(self.leader.pid, signal.SIGTERM)
            for one in psutil.wait_procs(all_of_them, timeout=END_LIMIT_S)[1]:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
        self.leader.wait()


@contextmanager
def started(command: Sequence[str]) -> Iterator[Group]:
    """Runs `command` while the body looks on; where the body is left before its end, it is ended."""
    with _terminated_as_an_error():
        leader = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        group = Group(leader)
        pump = threading.Thread(target=group.pass_on, daemon=True)
        pump.start()
        try:
            yield group
        finally:
            if leader.poll() is None:
                group.end()
            pump.join(1.0)


@contextmanager
def _terminated_as_an_error() -> Iterator[None]:
    """Makes a SIGTERM that nobody handles an exception, so that it passes through what ends the processes."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return

    def leave(number: int, frame: object) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
