"""One pipeline at a time in a checkout: DVC's own lock would fail the second one at once, this lets it wait."""

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from filelock import Timeout

from tasks.state import locked

LOOK_AGAIN_S = 1.0
SAY_AGAIN_S = 60.0

log = logging.getLogger(__name__)


async def _unseen(holder: str | None) -> None:
    pass


@asynccontextmanager
async def turn(
    run_id: str, name: str, show_waiting: Callable[[str | None], Awaitable[None]] = _unseen
) -> AsyncIterator[str | None]:
    """Waits, and says so, until no other pipeline runs on this state folder.

    `show_waiting` is told the name of the run that is waited for, and None when the wait is over. Gives the id of the
    run before where that was killed in its turn and could not say goodbye, else None.
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
                other = _read(holder)
                running = other.get("name", "unknown")
                log.info("%s runs (process %s); this run waits for its turn", running, other.get("process", "unknown"))
                await show_waiting(running)
            await asyncio.sleep(LOOK_AGAIN_S)
            waited += LOOK_AGAIN_S
    try:
        if waited:
            await show_waiting(None)
        killed = _read(holder).get("id")
        holder.write_text(json.dumps({"process": os.getpid(), "id": run_id, "name": name}), encoding="utf-8")
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
