"""Checks of the state folder: what earlier runs left, whether a pipeline is running, and MLflow's store."""

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from filelock import FileLock, Timeout

from longreward.errors import LongRewardError
from longreward.tasks.doctor.finding import Finding, failure, note, ok, public_url
from longreward.tasks.flow_runs import killed_runs
from longreward.tasks.pipeline_lock import queue
from longreward.tasks.state import STATE_VARIABLE, experiment_copies, state_folder
from longreward.tasks.tracking.store import TRACKING_URI, store_uri


def check_state() -> Iterator[Finding]:
    """Check that the state folder is writable, which pipelines use it, and the store of runs."""
    try:
        folder = state_folder()
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (LongRewardError, OSError) as error:
        yield failure("state", str(error), f"make it writable, or set {STATE_VARIABLE} to another folder")
        return
    lock = folder / "locks/pipeline.lock"
    try:
        if lock.exists():
            with FileLock(lock, blocking=False):
                pass
        yield ok("state", f"{folder} is writable; no pipeline is running")
    except Timeout:
        runs = [f"{run.name} (process {run.process})" for run in queue()] or ["one of another container or machine"]
        waiting = f"; waiting: {', '.join(runs[1:])}" if runs[1:] else ""
        yield note("state", f"a pipeline is running: {runs[0]}{waiting}", "a later one waits for it")
    if copies := [copy for copy in experiment_copies().glob("*") if copy.is_dir()]:
        message = f"private copies for runs with -S in {experiment_copies()}: {len(copies)}"
        yield note("state", message, "the next such run removes them, unless one is in use now")
    if killed := killed_runs():
        message = f"runs of killed processes that Prefect shows as running: {len(killed)}"
        yield note("state", message, "`longreward doctor` without --offline, `serve` or the next pipeline closes them")
    yield from _check_store()


def _check_store() -> Iterator[Finding]:
    try:
        uri = store_uri()
    except LongRewardError as error:
        yield failure("mlflow", str(error), f"correct {TRACKING_URI}")
        return
    if not uri.startswith("sqlite:///"):
        if not uri.startswith("http"):
            yield ok("mlflow", f"runs are stored at {public_url(uri)}")
        return
    path = Path(uri.removeprefix("sqlite:///"))
    if not path.exists():
        yield ok("mlflow", f"{path} will be created by the first run")
        return
    try:
        runs = len(run_statuses(path))
    except sqlite3.Error as error:
        yield failure("mlflow", f"{path} cannot be read as MLflow's store: {error}", "move it; a new one is created")
        return
    yield ok("mlflow", f"{runs} runs in {path}")


def run_statuses(store: Path) -> list[str]:
    """Return the status of each run in an MLflow store; raises sqlite3.Error. Importing MLflow would take seconds."""
    with closing(sqlite3.connect(f"{store.resolve().as_uri()}?mode=ro", uri=True, timeout=2)) as connection:
        return [status for (status,) in connection.execute("select status from runs")]
