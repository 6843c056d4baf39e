"""The pipeline's tasks: raw data under DVC, one stage through DVC, data to the remote."""

import json
import logging
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect import get_client, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterParentTaskRunId,
)
from prefect.client.schemas.objects import State, TaskRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.context import FlowRunContext, TaskRunContext
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL
from prefect.states import Cancelled, Crashed, Pending, Running
from prefect.task_engine import run_task_async
from prefect.tasks import exponential_backoff

from longreward.errors import JudgeUnavailable, LongRewardError
from longreward.tasks import dvc_command, tracking
from longreward.tasks.flow_runner import server_answers
from longreward.tasks.flow_runs import killed_runs
from longreward.tasks.prefect_server import PrefectServer
from longreward.tasks.processes import this_process
from longreward.tasks.stage import (
    ASKED_FOR,
    COMPLETED,
    PARENT_TASK,
    PIPELINE,
    RUNNING,
    StageExit,
    pop_stage_exit,
    stage_exit_file,
)
from longreward.tasks.stage import STAGE_EXIT as OUTCOME
from longreward.tasks.state import STATE_VARIABLE, delete_committed, state_folder
from longreward.utils.progress import format_duration

log = logging.getLogger(__name__)


class StageFailed(LongRewardError):
    """A stage ended with an error; the message is the stage's own."""


class StageInterrupted(StageFailed):
    """A stage's judge was not available: another try later may help, and goes on where this one stopped."""


@dataclass(frozen=True)
class StageResult:
    """How a stage went; `ran` is False where DVC found it up to date."""

    stage: str
    ran: bool
    seconds: float

    def __str__(self) -> str:
        return f"{self.stage} {f'done in {format_duration(self.seconds)}' if self.ran else 'is up to date'}"


@task(cache_policy=NO_CACHE, persist_result=False)
async def add_raw_data() -> None:
    """Raw data that is new or has changed goes under DVC."""
    if await dvc_command.add_raw():
        log.info("%s is now as DVC knows it (%s.dvc)", dvc_command.RAW, dvc_command.RAW)


@task(cache_policy=NO_CACHE, persist_result=False, retries=2, retry_delay_seconds=exponential_backoff(10))
async def push_data() -> None:
    """Data and models go to the default remote, where there is one."""
    if await dvc_command.push():
        log.info("data and models are at the remote")


@asynccontextmanager
async def stage_task_runs(stages: Iterable[str]) -> AsyncIterator[dict[str, TaskRun]]:
    """The rows of the stages' tasks in the flow that runs, all Pending: what is still to come shows in the UI.

    They are made before any task starts. A stage's flow run can only be put under a row that the server has, and the
    rows of tasks that start in the usual way reach it some seconds late. One made between two tasks meets the server
    writing down the first one's end, gets "database is locked" and costs two seconds.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        raise RuntimeError("stage_rows belongs into a flow")
    async with get_client() as client:
        flow_id = context.flow_run.id
        rows = {
            name: await client.create_task_run(_reproduce, flow_id, dynamic_key=name, name=name, state=Pending())
            for name in stages
        }
        try:
            yield rows
        except Exception:
            for row in rows.values() if await server_answers() else ():
                state = (await client.read_task_run(row.id)).state
                if state is not None and state.is_pending():
                    await client.set_task_run_state(row.id, Cancelled(name="NotReached"), force=True)
            raise


async def reproduce_stage(row: TaskRun, *, asked_for: Sequence[str], force: bool, parent: str) -> StageResult:
    """Brings the stage of a row up to date under MLflow's `parent`; `asked_for` are all stages of the run."""
    parameters = {"name": row.name, "asked_for": asked_for, "force": force, "parent": parent}
    outcome: Any = await run_task_async(_reproduce, task_run=row, parameters=parameters)
    assert isinstance(outcome, StageResult)
    position = f"stage {asked_for.index(row.name) + 1} of {len(asked_for)}"
    log.info("%s: %s", position, outcome)
    return outcome


async def _can_go_on(task: object, run: object, state: Any) -> bool:
    return isinstance(await state.aresult(raise_on_failure=False), StageInterrupted)


@task(
    name="stage",
    retries=1,
    retry_delay_seconds=exponential_backoff(30),
    retry_condition_fn=_can_go_on,
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def _reproduce(name: str, *, asked_for: Sequence[str], force: bool, parent: str) -> StageResult:
    started = time.monotonic()
    row = TaskRunContext.get().task_run.id  # type: ignore[union-attr]
    server = PrefectServer(str(PREFECT_API_URL.value()), PREFECT_API_AUTH_STRING.value())
    file = stage_exit_file(row)
    environment = {
        OUTCOME: str(file),
        PARENT_TASK: str(row),
        PIPELINE: str(this_process()),
        ASKED_FOR: ",".join(asked_for),
        tracking.PARENT: parent,
        STATE_VARIABLE: str(state_folder()),
        **server.environment,
    }
    ended = await dvc_command.reproduce(name, force=force, environment=environment)
    outcome = pop_stage_exit(file)
    if ended.code:
        if outcome is not None and not outcome.is_final:
            await _mark_killed(row)
        raise _failure(name, outcome, ended.words)
    delete_committed(dvc_command.committed_hashes())
    if outcome is None:  # DVC found the stage up to date, or took it from its run cache
        tracking.link_stage(parent, name, _figures(name))
    return StageResult(name, outcome is not None, time.monotonic() - started)


async def show_waiting(holder: str | None) -> None:
    """Says in the UI for which run this one waits; None: no more."""
    state: State[Any] = Running(name=f"Waiting for {holder}") if holder else Running()
    async with get_client() as client:
        await client.set_flow_run_state(UUID(flow_run.id), state, force=True)


async def close_killed_flows() -> int:
    """Close, for the UI, the runs of killed processes of this state folder; return how many there were."""
    killed = killed_runs()
    for flow_run_id, file in killed.items():
        await _close_killed(UUID(flow_run_id))
        file.unlink(missing_ok=True)
    return len(killed)


async def _close_killed(flow_id: UUID) -> None:
    """Ends, for the UI, an earlier run and what ran under it: killed outright, they still seem to run."""
    killed: State[Any] = Crashed(message="its process was killed")
    of_flow = FlowRunFilter(id=FlowRunFilterId(any_=[flow_id]))
    async with get_client() as client:
        runs = await client.read_flow_runs(flow_run_filter=of_flow)
        rows = await client.read_task_runs(flow_run_filter=of_flow)
        under_rows = FlowRunFilterParentTaskRunId(any_=[row.id for row in rows])
        runs += await client.read_flow_runs(flow_run_filter=FlowRunFilter(parent_task_run_id=under_rows))
        for run in runs:
            if run.state is not None and not run.state.is_final():
                await client.set_flow_run_state(run.id, killed, force=True)
        for row in rows:
            if row.state is not None and not row.state.is_final():
                await client.set_task_run_state(row.id, killed, force=True)


async def _mark_killed(row: UUID) -> None:
    """Ends, for the UI, the flow run of a stage that was killed outright and could not do so itself."""
    killed: State[Any] = Crashed(message="its process was killed")
    under_row = FlowRunFilter(parent_task_run_id=FlowRunFilterParentTaskRunId(any_=[row]))
    try:
        async with get_client() as client:
            runs = await client.read_flow_runs(flow_run_filter=under_row, sort=FlowRunSort.START_TIME_DESC, limit=1)
            for run in runs:
                if run.state is not None and not run.state.is_final():
                    await client.set_flow_run_state(run.id, killed, force=True)
    except httpx.HTTPError as error:
        log.warning("Prefect's server was not told that the stage was killed: %s", error)


def _failure(name: str, outcome: StageExit | None, words: str) -> StageFailed:
    """The stage's own words where its flow got so far, else those of DVC."""
    if outcome is None or outcome.state in (RUNNING, COMPLETED):
        errors = "\n".join(line for line in words.splitlines() if line.startswith("ERROR")) or words
        return StageFailed(f"stage {name} failed" + (f":\n{errors}" if errors else "; its words are above"))
    kind = StageInterrupted if outcome.state == JudgeUnavailable.__name__ else StageFailed
    return kind(f"stage {name} failed: {outcome.message}")


def _figures(stage: str) -> dict[str, Any]:
    file = Path("metrics") / f"{stage}.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    return found
