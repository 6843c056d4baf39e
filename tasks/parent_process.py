"""On whose behalf a process works: the `dvc` command that started it, or nobody but itself.

Seven stages of one `dvc repro` share a Prefect server and an MLflow parent; what they have in common is that process.
"""

from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class ParentProcess:
    """A process for all time: its number alone comes back in another one's hands."""

    pid: int
    started: float

    def __str__(self) -> str:
        return f"{self.pid}-{self.started:.2f}"

    @classmethod
    def read(cls, text: str) -> "ParentProcess":
        """The inverse of str; raises ValueError."""
        pid, _, started = text.partition("-")
        return cls(int(pid), float(started))

    @property
    def alive(self) -> bool:
        """Whether exactly this process still runs."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 0.02
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    @property
    def command(self) -> list[str]:
        """The words that started it; none where it is gone or another user's."""
        try:
            return psutil.Process(self.pid).cmdline()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return []


def parent_process() -> ParentProcess:
    """The nearest `dvc` command above this process, else this process."""
    here = psutil.Process()
    above = next((process for process in here.parents() if _is_dvc(process)), here)
    return ParentProcess(above.pid, round(above.create_time(), 2))


def this_process() -> ParentProcess:
    """This process, whoever started it."""
    here = psutil.Process()
    return ParentProcess(here.pid, round(here.create_time(), 2))


def _is_dvc(process: psutil.Process) -> bool:
    """`dvc repro`, `python …/dvc repro` or `python -m dvc repro`."""
    try:
        return any(Path(word).stem == "dvc" for word in process.cmdline()[:3])
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
