"""The files by which a launcher and its training processes communicate, in one temporary folder.

job.json            what to train
metrics.jsonl       [step, {"loss": …}], one line at a time, by the first process
progress.json       ["train, steps", 12, 400]: the latest progress, by the first process
report.json         at the end, by the first process
error.json          {"kind": "PolicyError", "message": …}: the first error of ours in any process
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from longreward import errors
from longreward.config import Config
from longreward.errors import LongRewardError
from longreward.models.config import PolicyConfig
from longreward.training.report import Log, TrainingReport
from longreward.utils.progress import ProgressEstimate, notify_observers

REPORT = TypeAdapter(TrainingReport)


class Job(Config):
    """One training."""

    stage: Literal["sft", "train"]
    settings: dict[str, Any]
    policy: PolicyConfig
    model: str
    data: Path
    out: Path
    state: Path
    launcher_pid: int
    """The process without which the training ends."""


def append_metrics(folder: Path, step: int, metrics: dict[str, float]) -> None:
    """Append a line for the launcher."""
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps([step, metrics]) + "\n")


class MetricsReader:
    """Passes the lines that were appended since the last poll to `log`."""

    def __init__(self, folder: Path, log: Log | None) -> None:
        self._path, self._log, self._offset = folder / "metrics.jsonl", log, 0

    def poll(self) -> None:
        """Read new lines; an incomplete one waits for the next poll."""
        if self._log is None or not self._path.is_file():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                step, metrics = json.loads(line)
                self._log(step, metrics)


def write_progress(folder: Path, estimate: ProgressEstimate) -> None:
    """Write the progress for the launcher; it never reads a partial file."""
    part = folder / "progress.part"
    part.write_text(json.dumps([estimate.title, estimate.done, estimate.total]), encoding="utf-8")
    part.replace(folder / "progress.json")


class ProgressReader:
    """Passes the progress of the job to the observers of this process."""

    def __init__(self, folder: Path) -> None:
        self._path, self._estimate = folder / "progress.json", ProgressEstimate("")

    def poll(self) -> None:
        """Read the latest progress."""
        if not self._path.is_file():
            return
        title, done, total = json.loads(self._path.read_text(encoding="utf-8"))
        if title != self._estimate.title:
            self._estimate = ProgressEstimate(title)
        self._estimate.update(done, total)
        notify_observers(self._estimate)


def write_report(folder: Path, report: TrainingReport) -> None:
    """Write the report of a finished job."""
    (folder / "report.json").write_bytes(REPORT.dump_json(report))


def read_report(folder: Path) -> TrainingReport | None:
    """Read the report; None where the job did not finish."""
    path = folder / "report.json"
    return REPORT.validate_json(path.read_bytes()) if path.is_file() else None


def write_error(folder: Path, error: LongRewardError) -> None:
    """Write the error that stopped a process, unless another process failed before: the first error is the cause."""
    with suppress(FileExistsError), (folder / "error.json").open("x", encoding="utf-8") as file:
        json.dump({"kind": type(error).__name__, "message": str(error)}, file)


def read_error(folder: Path) -> LongRewardError | None:
    """Read the first error; None where no process wrote one."""
    if not (folder / "error.json").is_file():
        return None
    content = json.loads((folder / "error.json").read_text(encoding="utf-8"))
    error: LongRewardError = getattr(errors, content["kind"], LongRewardError)(content["message"])
    return error
