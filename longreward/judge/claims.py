"""Claims on requests in flight, so that processes that share a ledger do not send the same request at the same time.

A claim is a lock on one byte of the empty file `<ledger>.claims`, at an offset computed from the key of the request.
The kernel releases the locks of a process that ends, even with `kill -9`, so a claim needs no owner, no expiry and no
row in the ledger, and costs microseconds.
"""

import asyncio
import errno
import fcntl
import struct
from pathlib import Path
from typing import IO

from longreward.errors import StateError

_OFFSET_DIGITS = 15  # hexadecimal ones of the key; offsets are signed 64-bit integers
# `struct flock` of Linux on 64-bit machines: type, whence, start, length, process.
_FLOCK = "hhqqi4x"
# The shortest and longest pause between two looks at a claim, and their share of the seconds waited so far.
MIN_PAUSE_S, MAX_PAUSE_S, PAUSE_SHARE = 0.02, 1.0, 0.1


class Claims:
    """The claims of one client; those without a ledger file always succeed."""

    def __init__(self, ledger: Path | None) -> None:
        self._path = None if ledger is None else ledger.with_name(f"{ledger.name}.claims")
        self._file: IO[bytes] | None = None

    def acquire(self, key: str) -> bool:
        """Claim a request; return False if another client, of any process, has it. Repeating a claim has no effect.

        Raises StateError if the file cannot be opened or locked.
        """
        if self._path is None:
            return True
        try:
            if self._file is None:
                self._file = self._path.open("ab")
            self._lock(fcntl.F_WRLCK, key)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise StateError(
                f"{self._path}: {error.strerror}. Requests in flight are locked in this file: put the ledger on a "
                "local disk where files can be locked (LONGREWARD_STATE)"
            ) from error
        return True

    def release(self, key: str) -> None:
        """Let other clients claim the request."""
        if self._file is not None:
            self._lock(fcntl.F_UNLCK, key)

    async def wait(self, key: str, *, timeout_s: float) -> bool:
        """Wait until no other client claims the request; return False if one still does after `timeout_s`."""
        waited_s = 0.0
        while not self.acquire(key):
            if waited_s >= timeout_s:
                return False
            # Locks cannot be awaited. Pauses in proportion cost little CPU time and delay a reply by a tenth at most.
            pause_s = min(MAX_PAUSE_S, max(MIN_PAUSE_S, PAUSE_SHARE * waited_s))
            await asyncio.sleep(pause_s)
            waited_s += pause_s
        # The caller must first get a slot of the rate limiter, perhaps minutes later, and claims the request then.
        self.release(key)
        return True

    def close(self) -> None:
        """Release all claims."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _lock(self, kind: int, key: str) -> None:
        assert self._file is not None
        offset = int(key[:_OFFSET_DIGITS], 16)
        # Locks of the open file, not of the process: clients in one process exclude each other too, and closing one
        # client keeps the claims of the others. Where the platform has none, those of the process do most of it.
        if (command := getattr(fcntl, "F_OFD_SETLK", None)) is not None:
            fcntl.fcntl(self._file, command, struct.pack(_FLOCK, kind, 0, offset, 1, 0))
        else:
            operation = fcntl.LOCK_UN if kind == fcntl.F_UNLCK else fcntl.LOCK_EX | fcntl.LOCK_NB
            fcntl.lockf(self._file, operation, 1, offset)
