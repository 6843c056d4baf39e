"""Checks of the state folder: what earlier runs left, and whether a pipeline is running."""

import tempfile
from collections.abc import Iterator

from filelock import FileLock, Timeout

from longreward.errors import LongRewardError
from longreward.tasks.doctor.finding import Finding, failure, note, ok
from longreward.tasks.flow_runs import killed_runs
from longreward.tasks.pipeline_lock import queue
from longreward.tasks.state import STATE_VARIABLE, experiment_copies, state_folder


def check_state() -> Iterator[Finding]:
    """Check that the state folder is writable, and which pipelines use it."""
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
