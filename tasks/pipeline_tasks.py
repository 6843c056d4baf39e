"""The Prefect tasks of the pipeline: raw data under DVC, one stage through DVC, data to the remote."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
from prefect import get_client, task
from prefect.assets import materialize
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL
from prefect.states import Cancelled, Completed, Pending, Running
from prefect.task_engine import run_task_async
from prefect.tasks import MaterializingTask, exponential_backoff

from longreward.errors import JudgeUnavailable, LongRewardError
from longreward.tasks import dvc_command
from longreward.tasks.assets import describe_outputs, input_assets, output_assets
from longreward.tasks.dvc_command import StageResult
from longreward.tasks.dvc_files import RAW, RAW_ENTRY, committed_hashes, stage_entries
from longreward.tasks.flow_runner import server_answers
from longreward.tasks.flow_runs import child_flow_runs, close_flow_runs
from longreward.tasks.interruption import Interrupted, cancelled_state, received_signal
from longreward.tasks.prefect_server import PrefectServer
from longreward.tasks.processes import this_process
from longreward.tasks.run_names import RUN_NAME
from longreward.tasks.stage import (
    PARENT_TASK,
    PIPELINE,
    REQUESTED_STAGES,
    STAGE_EXIT,
    pop_stage_exit,
    stage_exit_file,
)
from longreward.tasks.stage_metrics import StageReport, format_headline, read_report
from longreward.tasks.stage_processes import fork_server
from longreward.tasks.state import STATE_VARIABLE, delete_committed, state_folder
from longreward.tasks.tracking.run import UNKNOWN
from longreward.tasks.tracking.run_hierarchy import PARENT, link_stage

log = logging.getLogger(__name__)


class StageFailed(LongRewardError):
    """A stage ended with an error; the message is the stage's own."""


class StageInterrupted(StageFailed):
    """The judge was not available to a stage: a later try may succeed, and continues where this one stopped."""


@task(task_run_name="add raw data", cache_policy=NO_CACHE, persist_result=False)
async def add_raw_data() -> None:
    """Add raw data that is new or has changed to DVC."""
    if await dvc_command.add_raw():
        log.info("%s is recorded in DVC (%s)", RAW, RAW_ENTRY)


@task(
    task_run_name="push data",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=2,
    retry_delay_seconds=exponential_backoff(10),
)
async def push_data() -> None:
    """Push data and models to the default remote, if there is one."""
    if await dvc_command.push():
        log.info("data and models are at the remote")


@asynccontextmanager
async def stage_task_runs(stages: Iterable[str]) -> AsyncIterator[dict[str, TaskRun]]:
    """Create the task runs of the stages in the current flow, all Pending, so that the UI shows what is to come.

    They are created before any task starts: a stage's flow run can only be put under a task run that the server has,
    and task runs that start in the usual way reach it some seconds late. Creating one between two tasks meets the
    server recording the end of the first, gets "database is locked" and costs two seconds.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        raise RuntimeError("stage_task_runs must be called in a flow")
    async with get_client() as client:
        flow_id = context.flow_run.id
        task_runs = {
            name: await client.create_task_run(_stage_task(name), flow_id, dynamic_key=name, name=name, state=Pending())
            for name in stages
        }
        try:
            yield task_runs
        except (Exception, Interrupted, asyncio.CancelledError):
            for task_run in task_runs.values() if await server_answers() else ():
                state = (await client.read_task_run(task_run.id)).state
                if state is not None and state.is_pending():
                    await client.set_task_run_state(task_run.id, Cancelled(name="NotReached"), force=True)
            raise


async def reproduce_stage(
    task_run: TaskRun, *, requested: Sequence[str], force: bool, parent: str, run_name: str
) -> StageResult:
    """Bring the stage of a task run up to date.

    Args:
        requested: all stages of this pipeline run.
        force: run it even if nothing has changed.
        parent: the pipeline's MLflow run.
        run_name: of the pipeline.
    """
    parameters = {"name": task_run.name, "requested": requested, "force": force, "parent": parent, "run_name": run_name}
    result: Any = await run_task_async(_stage_task(task_run.name), task_run=task_run, parameters=parameters)
    if isinstance(result, State):
        result = await result.aresult()
    assert isinstance(result, StageResult)
    log.info("stage %d of %d: %s", requested.index(task_run.name) + 1, len(requested), result)
    return result


def fork_stages(stages: Sequence[str]) -> AbstractAsyncContextManager[None]:
    """Start the stages in the block from one process that imports their libraries once, see `tasks.fork_server`."""
    return fork_server(stages, environment=_server_environment())


def _server_environment() -> dict[str, str]:
    return PrefectServer(str(PREFECT_API_URL.value()), PREFECT_API_AUTH_STRING.value()).environment


async def _is_interrupted(task: object, run: object, state: Any) -> bool:
    return isinstance(await state.aresult(raise_on_failure=False), StageInterrupted)


def _stage_task(stage: str) -> "MaterializingTask[..., Any]":
    entries = stage_entries()
    return materialize(
        *output_assets(entries[stage]),
        by="dvc",
        asset_deps=[*input_assets(entries[stage], entries)],
        name="stage",
        retries=1,
        retry_delay_seconds=exponential_backoff(30),
        retry_condition_fn=_is_interrupted,
        cache_policy=NO_CACHE,
        persist_result=False,
    )(_reproduce)


async def _reproduce(
    name: str, *, requested: Sequence[str], force: bool, parent: str, run_name: str
) -> StageResult | State[StageResult]:
    started = time.monotonic()
    task_run_id = TaskRunContext.get().task_run.id  # type: ignore[union-attr]
    exit_file = stage_exit_file(task_run_id)
    environment = {
        STAGE_EXIT: str(exit_file),
        PARENT_TASK: str(task_run_id),
        PIPELINE: str(this_process()),
        REQUESTED_STAGES: ",".join(requested),
        PARENT: parent,
        RUN_NAME: run_name,
        STATE_VARIABLE: str(state_folder()),
        **_server_environment(),
    }
    try:
        command = await dvc_command.reproduce(name, force=force, environment=environment)
    except BaseException:
        exit_file.unlink(missing_ok=True)
        if received_signal():  # the stage was terminated; it may have had no time to end its flow run
            await _close_stage_runs(task_run_id, cancelled_state())
        raise
    stage_exit = pop_stage_exit(exit_file)
    if command.code:
        if stage_exit is not None and stage_exit.state == "Running":  # the process was killed
            await _close_stage_runs(task_run_id, None)
        if stage_exit is None or stage_exit.state in ("Running", "Completed"):  # DVC's message, not the stage's
            lines = [line for line in command.output.splitlines() if line.startswith("ERROR")]
            errors = "\n".join(lines) or command.output
            raise StageFailed(f"stage {name} failed" + (f":\n{errors}" if errors else "; its output is above"))
        failure = StageInterrupted if stage_exit.state == JudgeUnavailable.__name__ else StageFailed
        raise failure(f"stage {name} failed: {stage_exit.message}")
    delete_committed(committed_hashes())
    if stage_exit is None:  # DVC found the stage up to date, or restored it from its run cache
        report = read_report(name) or StageReport(name, UNKNOWN, UNKNOWN)
        link_stage(parent, name, report.headline, stage_run_id=report.mlflow_run)
        result = StageResult(name, False, time.monotonic() - started)
        return Completed(name="Cached", message="up to date", data=result)  # by this name, no asset is materialized
    describe_outputs(stage_entries()[name], run_name=run_name, mlflow_run=parent)
    return StageResult(name, True, time.monotonic() - started, format_headline(read_report(name)))


async def _close_stage_runs(task_run_id: UUID, state: State[Any] | None) -> None:
    try:
        async with get_client() as client:
            await close_flow_runs(client, await child_flow_runs(client, [task_run_id]), state)
    except httpx.HTTPError as error:
        log.warning("the end of the stage could not be recorded in Prefect: %s", error)


async def show_waiting(holder: str | None) -> None:
    """Show in the UI for which run the current flow run waits; None ends it."""
    state: State[Any] = Running(name=f"Waiting for {holder}") if holder else Running()
    async with get_client() as client:
        await client.set_flow_run_state(UUID(flow_run.id), state, force=True)
