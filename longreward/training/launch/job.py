"""What a training that was started elsewhere is asked to do, and what it leaves: all as files of one folder.

job.json            what to train
figures.jsonl       [step, {"loss": …}], a line at a time, by the first process
report.json         at the end, by the first process
error-1.json        {"kind": "PolicyError", "message": …}: an error of ours in process 1
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from longreward import errors
from longreward.config import Config
from longreward.errors import LongRewardError
from longreward.models.config import PolicyConfig
from longreward.training.report import TrainingReport

REPORT = TypeAdapter(TrainingReport)


class Job(Config):
    """One training; `starter` is the process that wants it, without which it ends."""

    stage: Literal["sft", "train"]
    settings: dict[str, Any]
    policy: PolicyConfig
    model: str
    data: Path
    out: Path
    state: Path
    starter: int

    @classmethod
    def read(cls, folder: Path) -> "Job":
        """The job of a folder."""
        return cls.model_validate_json((folder / "job.json").read_text(encoding="utf-8"))

    def write(self, folder: Path) -> None:
        """Makes it the folder's job."""
        (folder / "job.json").write_text(self.model_dump_json(), encoding="utf-8")


def append_metrics(folder: Path, step: int, figures: dict[str, float]) -> None:
    """Adds a line."""
    with (folder / "figures.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps([step, figures]) + "\n")


class MetricsReader:
    """Hands on the lines that were added since the last look."""

    def __init__(self, folder: Path, log: Callable[[int, dict[str, float]], None] | None) -> None:
        self._path, self._log, self._read = folder / "figures.jsonl", log, 0

    def look(self) -> None:
        """A line that is not yet whole waits for the next look."""
        if self._log is None or not self._path.is_file():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                step, figures = json.loads(line)
                self._log(step, figures)


def write_report(folder: Path, report: TrainingReport) -> None:
    """The job is done."""
    (folder / "report.json").write_bytes(REPORT.dump_json(report))


def read_report(folder: Path) -> TrainingReport | None:
    """None where the job is not done."""
    path = folder / "report.json"
    return REPORT.validate_json(path.read_bytes()) if path.is_file() else None


def write_error(folder: Path, process: int, error: LongRewardError) -> None:
    """What stopped a process."""
    said = {"kind": type(error).__name__, "message": str(error)}
    part = folder / f"error-{process}.part"
    part.write_text(json.dumps(said), encoding="utf-8")
    part.replace(folder / f"error-{process}.json")


def read_error(folder: Path) -> LongRewardError | None:
    """The error that came first; None where no process left one."""
    found = sorted(folder.glob("error-*.json"), key=lambda path: path.stat().st_mtime_ns)
    if not found:
        return None
    said = json.loads(found[0].read_text(encoding="utf-8"))
    kind = getattr(errors, said["kind"], LongRewardError)
    error: LongRewardError = kind(said["message"])
    return error
