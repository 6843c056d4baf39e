"""What earlier runs left and whether another one is under way: the state folder, and MLflow's store in it."""

import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from longreward.errors import LongRewardError
from longreward.tasks.doctor.finding import Finding, bad, good, note, shown
from longreward.tasks.flow_runs import killed_runs
from longreward.tasks.pipeline_lock import queue
from longreward.tasks.state import STATE_VARIABLE, experiment_copies, state_folder
from longreward.tasks.tracking.store import TRACKING_URI, store_uri


def check_state() -> Iterator[Finding]:
    """Whether the state folder can be written, who is at work in it, and the store of runs."""
    try:
        folder = state_folder()
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (LongRewardError, OSError) as error:
        yield bad("state", str(error), f"make it writable, or set {STATE_VARIABLE} to another folder")
        return
    yield _running(folder)
    yield from _left_over()
    yield from _killed()
    yield from _runs()


def _running(folder: Path) -> Finding:
    lock = folder / "locks/pipeline.lock"
    try:
        if lock.exists():
            with FileLock(lock, blocking=False):
                pass
    except Timeout:
        runs = [f"{run.name} (process {run.process})" for run in queue()] or ["one of another container or machine"]
        waiting = f"; waiting: {', '.join(runs[1:])}" if runs[1:] else ""
        return note("state", f"a pipeline runs here now: {runs[0]}{waiting}", "a later one waits for it")
    return good("state", f"{folder} can be written; no pipeline runs")


def _left_over() -> Iterator[Finding]:
    copies = [copy for copy in experiment_copies().glob("*") if copy.is_dir()]
    if copies:
        said = f"private copies for runs with -S in {experiment_copies()}: {len(copies)}"
        yield note("state", said, "the next such run removes them, unless one is at work now")


def _killed() -> Iterator[Finding]:
    """They are closed with the other servers, unless those are not to be asked."""
    if killed := killed_runs():
        said = f"runs of killed processes that still seem to run in Prefect: {len(killed)}"
        yield note("state", said, "`longreward doctor` without --offline, `serve` or the next pipeline closes them")


def _runs() -> Iterator[Finding]:
    try:
        uri = store_uri()
    except LongRewardError as error:
        yield bad("mlflow", str(error), f"mend {TRACKING_URI}")
        return
    if not uri.startswith("sqlite:///"):
        if not uri.startswith("http"):
            yield good("mlflow", f"runs are kept at {shown(uri)}")
        return
    path = Path(uri.removeprefix("sqlite:///"))
    if not path.exists():
        yield good("mlflow", f"{path} is made by the first run")
        return
    try:
        opened = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=2)
        try:
            (runs,) = opened.execute("select count(*) from runs").fetchone()
        finally:
            opened.close()
    except sqlite3.Error as error:
        yield bad("mlflow", f"{path} cannot be read as MLflow's store: {error}", "move it aside; a new one is made")
        return
    yield good("mlflow", f"{runs} runs in {path}")
