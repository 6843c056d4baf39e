"""Register the flow runs of this machine, and close in Prefect those whose process was killed.

A killed process cannot tell Prefect that its runs have ended: they would be "Running" for ever. Each flow run
therefore has a file named after the run and its process as long as it lasts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from longreward.tasks.processes import ProcessRef, this_process
from longreward.tasks.state import make_folder, state_folder

if TYPE_CHECKING:  # Prefect takes seconds to import, and `longreward doctor --offline` only needs `killed_runs`
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, State

KILLED = "its process was killed"


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
    """Return the ids of flow runs whose process has ended, with the file to remove once the run is closed."""
    killed = {}
    for file in _folder().iterdir():
        flow_run_id, _, process = file.name.partition(".")
        if not ProcessRef.parse(process).alive:
            killed[flow_run_id] = file
    return killed


async def close_killed_flows() -> int:
    """Close the runs of killed processes of this state folder, and what ran under them; return how many."""
    from prefect import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.states import Crashed

    killed = killed_runs()
    for flow_run_id, file in killed.items():
        async with get_client() as client:
            of_flow = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run_id)]))
            task_runs = await client.read_task_runs(flow_run_filter=of_flow)
            flow_runs = await client.read_flow_runs(flow_run_filter=of_flow)
            flow_runs += await child_flow_runs(client, [task_run.id for task_run in task_runs])
            await close_flow_runs(client, flow_runs)
            for task_run in task_runs:
                if task_run.state is not None and not task_run.state.is_final():
                    await client.set_task_run_state(task_run.id, Crashed(message=KILLED), force=True)
        file.unlink(missing_ok=True)
    return len(killed)


async def child_flow_runs(client: "PrefectClient", task_runs: list[UUID]) -> "list[FlowRun]":
    """Return the flow runs under these task runs."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentTaskRunId

    children = FlowRunFilter(parent_task_run_id=FlowRunFilterParentTaskRunId(any_=task_runs))
    return list(await client.read_flow_runs(flow_run_filter=children))


async def close_flow_runs(
    client: "PrefectClient", flow_runs: "list[FlowRun]", state: "State[Any] | None" = None
) -> None:
    """Set the flow runs that seem to be running to `state`, by default Crashed."""
    from prefect.states import Crashed

    from longreward.tasks.progress_artifact import delete_progress

    for run in flow_runs:
        if run.state is not None and not run.state.is_final():
            await client.set_flow_run_state(run.id, state or Crashed(message=KILLED), force=True)
            await delete_progress(client, run.id)


def _folder() -> Path:
    return make_folder(state_folder() / "prefect" / "open-runs")
