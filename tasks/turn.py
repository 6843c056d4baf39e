"""One pipeline at a time in a checkout: DVC's own lock would fail the second one at once, this lets it wait."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from filelock import Timeout

from tasks.state import locked

LOOK_AGAIN_S = 1.0
SAY_AGAIN_S = 60.0

log = logging.getLogger(__name__)


@asynccontextmanager
async def turn() -> AsyncIterator[None]:
    """Waits, and says so, until no other pipeline runs on this state folder."""
    lock = locked("pipeline")
    holder = Path(lock.lock_file).with_suffix(".holder")
    waited = 0.0
    while True:
        try:
            lock.acquire(blocking=False)
            break
        except Timeout:
            if waited % SAY_AGAIN_S == 0:
                log.info("another pipeline runs (process %s); this one waits for its turn", _read(holder))
            await asyncio.sleep(LOOK_AGAIN_S)
            waited += LOOK_AGAIN_S
    try:
        holder.write_text(str(os.getpid()), encoding="utf-8")
        yield
    finally:
        lock.release()


def _read(holder: Path) -> str:
    return holder.read_text(encoding="utf-8") if holder.exists() else "unknown"
