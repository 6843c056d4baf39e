"""One pipeline at a time in a checkout: DVC's own lock would fail the second one at once, this lets it wait.

Runs take their turn in the order in which they came. Each has a ticket, a numbered file, from its arrival to its end.
The file lock decides who may run and the tickets only who may ask for it, because the tickets of processes in another
container look dead from here.
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

LOOK_AGAIN_S = 1.0
SAY_AGAIN_S = 60.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ticket:
    """A run that waits for its turn, or has it; `experiment`: it will become the DVC experiment of its name."""

    file: Path
    name: str
    process: int
    experiment: bool


async def _unseen(holder: str | None) -> None:
    pass


@asynccontextmanager
async def pipeline_lock(
    name: str, show_waiting: Callable[[str | None], Awaitable[None]] = _unseen, *, experiment: bool = False
) -> AsyncIterator[None]:
    """Waits, and says so, until no other pipeline runs on this state folder and none waits that came before.

    `show_waiting` is told the name of the run that is waited for, and None when the wait is over. Raises ConfigError
    at once where `experiment` is set and a run that runs or waits will become the experiment of that name.
    """
    lock = state_lock("pipeline")
    ticket = _draw_ticket(name, experiment=experiment)
    shown: str | None = None
    waited = 0.0
    try:
        while True:
            before = [other for other in queue() if other.file < ticket.file]
            if not before:
                try:
                    lock.acquire(blocking=False)
                    break
                except Timeout:
                    pass  # a process whose ticket cannot be seen from here
            running = before[0].name if before else "unknown"
            if running != shown or waited >= SAY_AGAIN_S:
                process = before[0].process if before else "unknown"
                log.info("%s runs (process %s); this run waits for its turn", running, process)
                waited = 0.0
            if running != shown:
                await show_waiting(running)
                shown = running
            await asyncio.sleep(LOOK_AGAIN_S)
            waited += LOOK_AGAIN_S
        try:
            if shown is not None:
                await show_waiting(None)
            yield
        finally:
            lock.release()
    finally:
        ticket.file.unlink(missing_ok=True)


def queue() -> list[Ticket]:
    """The runs of living processes in their order: the first has its turn, or is about to; the others wait."""
    found = []
    for file in sorted(_folder().glob("[0-9]*")):
        try:
            if not ProcessRef.read(file.name.partition(".")[2]).alive:
                file.unlink(missing_ok=True)
                continue
            content = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:  # its run has just ended
            continue
        found.append(
            Ticket(file, content["name"], ProcessRef.read(file.name.partition(".")[2]).pid, content["experiment"])
        )
    return found


def _draw_ticket(name: str, *, experiment: bool) -> Ticket:
    """Takes the next number; the lock makes sure that no two runs take the same one, or the same name."""
    with state_lock("pipeline-queue"):
        others = queue()
        if experiment and any(other.experiment and other.name == name for other in others):
            raise ConfigError(f"a run {name!r} runs or waits here already: choose another name, or cancel that one")
        number = max((int(other.file.name.partition(".")[0]) for other in others), default=0) + 1
        file = _folder() / f"{number:09d}.{this_process()}"
        part = file.with_name(f"part.{file.name}")
        part.write_text(json.dumps({"name": name, "experiment": experiment}), encoding="utf-8")
        part.replace(file)
    return Ticket(file, name, this_process().pid, experiment)


def _folder() -> Path:
    return make_folder(state_folder() / "queue")
