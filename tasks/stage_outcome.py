"""How a stage's process ended, written to a file for the pipeline that started it.

The pipeline could ask the Prefect server, but a stage that has written its model counts whether or not that server is
still there to be told.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from longreward.tasks.state import made, state_folder

VARIABLE = "LONGREWARD_OUTCOME"
RUNNING, COMPLETED = "Running", "Completed"


@dataclass(frozen=True)
class Outcome:
    """`state` is Running (also of a process that was killed), Completed, or the name of an error with its message."""

    state: str
    message: str = ""

    @property
    def is_final(self) -> bool:
        return self.state != RUNNING


def outcome_file(task_run: UUID) -> Path:
    """Where the stage of a task run leaves its outcome; nothing is there yet."""
    file = made(state_folder() / "outcomes") / f"{task_run}.json"
    file.unlink(missing_ok=True)
    return file


def write_outcome(outcome: Outcome) -> None:
    """Writes it where `LONGREWARD_OUTCOME` says; nothing where no pipeline started this process."""
    if name := os.environ.get(VARIABLE):
        file = Path(name)
        part = file.with_suffix(".part")
        part.write_text(json.dumps({"state": outcome.state, "message": outcome.message}), encoding="utf-8")
        part.replace(file)


def take_outcome(file: Path) -> Outcome | None:
    """Reads and removes it; None where the stage's flow did not start, as DVC found the stage up to date."""
    try:
        found = Outcome(**json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    file.unlink()
    return found
