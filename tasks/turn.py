"""One pipeline at a time in a checkout: DVC's own lock would fail the second one at once, this lets it wait."""

import asyncio
import json
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
async def turn(name: str) -> AsyncIterator[str | None]:
    """Waits, and says so, until no other pipeline runs on this state folder.

    Gives the name of the one before where that was killed in its turn and could not say goodbye, else None.
    """
    lock = locked("pipeline")
    holder = Path(lock.lock_file).with_suffix(".holder")
    waited = 0.0
    while True:
        try:
            lock.acquire(blocking=False)
            break
        except Timeout:
            if waited % SAY_AGAIN_S == 0:
                log.info(
                    "another pipeline runs (process %s); this one waits for its turn",
                    _read(holder).get("process", "unknown"),
                )
            await asyncio.sleep(LOOK_AGAIN_S)
            waited += LOOK_AGAIN_S
    try:
        killed = _read(holder).get("name")
        holder.write_text(json.dumps({"process": os.getpid(), "name": name}), encoding="utf-8")
        yield killed
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _read(holder: Path) -> dict[str, str]:
    try:
        found = json.loads(holder.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
