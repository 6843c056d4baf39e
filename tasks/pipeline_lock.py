"""One pipeline at a time in a checkout: later ones wait in the order in which they came.

DVC's own lock would let the second pipeline fail at once. Each run has a ticket, a numbered file, from its arrival to
its end. The file lock decides which run may work, and the tickets decide which may try to acquire it: the tickets of
processes in another container look dead from here, so they alone would not exclude each other.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import Timeout

from longreward.errors import ConfigError
from longreward.tasks.processes import ProcessRef, this_process
from longreward.tasks.state import make_folder, state_folder, state_lock

POLL_INTERVAL_S = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ticket:
    """A run that waits for the lock or holds it; with `experiment` it becomes the DVC experiment of its name."""

    file: Path
    name: str
    process: int
    experiment: bool

    @property
    def number(self) -> int:
        """The position of its arrival among all runs."""
        return int(self.file.name.partition(".")[0])


async def _ignore(holder: str | None) -> None:
    pass


@asynccontextmanager
async def pipeline_lock(
    name: str, on_wait: Callable[[str | None], Awaitable[None]] = _ignore, *, experiment: bool = False
) -> AsyncIterator[None]:
    """Hold the lock of the checkout; wait, and log it, while an earlier run of this state folder runs or waits.

    `on_wait` is called with the name of the run that this one waits for, and with None when the wait is over. Raises
    ConfigError if this run and another one of the queue would both become the experiment `name`.
    """
    lock = state_lock("pipeline")
    ticket = _add_ticket(name, experiment=experiment)
    holder: str | None = None
    try:
        while True:
            earlier = [other for other in queue() if other.file < ticket.file]
            if not earlier:
                try:
                    lock.acquire(blocking=False)
                    break
                except Timeout:
                    pass  # held by a process whose ticket looks dead from here
            current = earlier[0].name if earlier else "unknown"
            if current != holder:
                process = earlier[0].process if earlier else "unknown"
                log.info("run %s waits for %s (process %s) to end", name, current, process)
                await on_wait(current)
                holder = current
            await asyncio.sleep(POLL_INTERVAL_S)
        try:
            if holder is not None:
                await on_wait(None)
            yield
        finally:
            lock.release()
    finally:
        ticket.file.unlink(missing_ok=True)


def queue() -> list[Ticket]:
    """Return the runs of living processes in order: the first holds the lock, or is about to; the others wait."""
    tickets = []
    for file in sorted(_folder().glob("[0-9]*")):
        process = ProcessRef.parse(file.name.partition(".")[2])
        if not process.alive:
            file.unlink(missing_ok=True)
            continue
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:  # its run has just ended
            continue
        tickets.append(Ticket(file, content["name"], process.pid, content["experiment"]))
    return tickets


def _add_ticket(name: str, *, experiment: bool) -> Ticket:
    with state_lock("pipeline-queue"):  # no two runs take the same number, or the name of the same experiment
        tickets = queue()
        if experiment and any(other.experiment and other.name == name for other in tickets):
            raise ConfigError(f"a run {name!r} runs or waits here already: choose another name, or cancel that one")
        number = max((other.number for other in tickets), default=0) + 1
        file = _folder() / f"{number:09d}.{this_process()}"
        part = file.with_name(f"part.{file.name}")
        part.write_text(json.dumps({"name": name, "experiment": experiment}), encoding="utf-8")
        part.replace(file)
    return Ticket(file, name, this_process().pid, experiment)


def _folder() -> Path:
    return make_folder(state_folder() / "queue")
