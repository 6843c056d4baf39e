"""Which flow runs are under way in processes of this machine, so that those of killed processes can be closed.

A process that is killed outright cannot tell Prefect, where its runs go on "Running" for ever. Each run therefore
leaves a file named after itself and its process.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from longreward.tasks.processes import ProcessRef, this_process
from longreward.tasks.state import make_folder, state_folder


@contextmanager
def register_flow_run(flow_run_id: str) -> Iterator[None]:
    """Keep the flow run registered while the block runs in this process."""
    file = _folder() / f"{flow_run_id}.{this_process()}"
    file.touch()
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def killed_runs() -> dict[str, Path]:
    """The ids of flow runs whose process is gone, each with the file that is to be removed once the run is closed."""
    found = {}
    for file in _folder().iterdir():
        flow_run_id, _, process = file.name.partition(".")
        if not ProcessRef.read(process).alive:
            found[flow_run_id] = file
    return found


def _folder() -> Path:
    return make_folder(state_folder() / "prefect" / "open-runs")
