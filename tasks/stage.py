"""What all stages have in common, so that a stage's flow contains only its own work.

    @stage
    async def pair(run: StageRun) -> None:
        '''The better against the worse response to each prompt.'''
        report = make_pairs(run.params.pair, …)
        run.log_metrics(report.figures())

    if __name__ == "__main__":
        main(pair)

The decorator makes the Prefect flow. It reads params.yaml, opens the MLflow run and the state folder, and at the end
writes reports/<stage>.json (all metrics), metrics/<stage>.json (the headline metrics, for DVC) and a table for the
Prefect UI. A LongRewardError ends the flow without a traceback.
"""

import csv
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect import Flow, flow, get_client, get_run_logger
from prefect.artifacts import acreate_table_artifact
from prefect.client.schemas.objects import State
from prefect.flow_engine import run_flow
from prefect.runtime import flow_run
from prefect.states import Completed, Failed, Pending

from longreward.checks import check_ready
from longreward.errors import LongRewardError
from longreward.params import Params, read_params, without_runtime_settings
from longreward.tasks.console_log import UI_ONLY, configure_console
from longreward.tasks.dvc_files import committed_hashes, data_hashes, stage_entries
from longreward.tasks.flow_runner import configure_logging, final_state, run_as_program, server_answers
from longreward.tasks.flow_runs import register_flow_run
from longreward.tasks.interruption import Interrupted, cancelled_state, stop_on_signals
from longreward.tasks.processes import ProcessRef, exit_with, owner_process
from longreward.tasks.progress_artifact import progress_artifact
from longreward.tasks.run_names import stage_run_name
from longreward.tasks.stage_metrics import StageReport
from longreward.tasks.state import (
    delete_committed,
    file_digests,
    make_folder,
    mark_complete,
    mark_incomplete,
    stage_folder,
    state_folder,
)
from longreward.tasks.tracking.run import DVC_TAG, Run
from longreward.tasks.tracking.run_hierarchy import link_stage, stage_run
from longreward.utils.jsonl import open_atomic
from longreward.utils.redaction import redact

# Variables that the pipeline sets for the process of a stage.
PARENT_TASK = "LONGREWARD_PARENT_TASK_RUN"  # the task run under which the stage's flow run appears
PIPELINE = "LONGREWARD_PIPELINE_PROCESS"  # the pipeline's process; the stage ends with it
REQUESTED_STAGES = "LONGREWARD_STAGES"  # all stages of the pipeline run, separated by commas
STAGE_EXIT = "LONGREWARD_STAGE_EXIT"  # the file in which the stage reports how it ended


@dataclass
class StageRun:
    """What the flow of a stage works with."""

    name: str
    params: Params
    state: Path
    """The folder for the stage's shards and checkpoints: the same one for the same inputs and settings, deleted once
    DVC has recorded the stage's outputs."""
    mlflow: Run
    log: "logging.Logger | logging.LoggerAdapter[logging.Logger]"
    inputs: Mapping[Path, bytes] = field(default_factory=dict)
    """The files and folders that the stage depends on, with their digests."""
    metrics: dict[str, float] = field(default_factory=dict)
    curves: list[dict[str, float]] = field(default_factory=list)

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Add to reports/<stage>.json, which MLflow shows on the stage's run."""
        self.metrics |= {name: float(value) for name, value in metrics.items()}

    def log_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a point to each training curve: at once in MLflow, and at the end in plots/<stage>.csv."""
        self.mlflow.log_step(step, metrics)
        self.curves.append({"step": float(step), **metrics})

    def shared_state(self, name: str, *, sections: Iterable[str], without: Iterable[Path]) -> Path:
        """Return a state folder for results that depend on neither the inputs `without` nor other sections.

        Runs that differ in nothing else find there what an earlier one computed. The folder is not deleted.
        """
        inputs = {path: digest for path, digest in self.inputs.items() if path not in set(without)}
        return stage_folder(name, settings=_settings_key(self.params, sections), inputs=inputs)


def stage(body: Callable[[StageRun], Awaitable[None]]) -> Flow[[], Any]:
    """Make `body` the Prefect flow of the stage of its name."""
    name = body.__name__

    @flow(name=name, description=body.__doc__, validate_parameters=False, persist_result=False)
    async def run() -> State[Any]:
        configure_logging()
        configure_console(name)
        started = time.monotonic()
        try:
            with register_flow_run(str(flow_run.id)), stop_on_signals(), _open_stage(name) as stage_run:
                with progress_artifact(name):
                    await body(stage_run)
                stage_run.log_metrics({"seconds": time.monotonic() - started})
                report_hash = _write_metrics(stage_run)
                await _show_metrics(stage_run)
            mark_complete(stage_run.state, report_hash)
        except LongRewardError as error:
            get_run_logger().error("%s: %s", type(error).__name__, error, extra=UI_ONLY)
            return await _conclude(Failed(name=type(error).__name__, message=str(error)))
        except Interrupted:
            state = cancelled_state()
            get_run_logger().warning("%s", state.message)
            return await _conclude(state)
        return await _conclude(Completed(message=f"{name} done in {time.monotonic() - started:.1f} s"))

    return run


def main(stage_flow: Flow[[], Any]) -> None:
    """Run a stage as `python -m longreward.flows.<stage>`; exit with 0, or 1 if the stage failed.

    The process also ends if the `dvc` command or the pipeline that started it is killed: it would otherwise write
    next to the next try.
    """
    pipeline = os.environ.get(PIPELINE)
    exit_with(owner_process(), terminator=ProcessRef.parse(pipeline) if pipeline else None)
    run_as_program(
        lambda: final_state.wait_for(lambda: _run_under_parent(stage_flow)), reports_error=STAGE_EXIT not in os.environ
    )


async def _run_under_parent(stage_flow: Flow[[], Any]) -> State[Any]:
    parent = os.environ.get(PARENT_TASK)
    async with get_client() as client:
        run = await client.create_flow_run(
            stage_flow,
            name=stage_run_name(stage_flow.name),
            parent_task_run_id=UUID(parent) if parent else None,
            state=Pending(),
        )
    write_stage_exit(StageExit())
    state: State[Any] = await run_flow(stage_flow, flow_run=run, return_type="state")  # type: ignore[misc]
    if final_state.state is None:  # an unexpected error, which `run` does not catch
        write_stage_exit(StageExit(str(state.name), state.message or ""))
    return state


async def _conclude(state: State[Any]) -> State[Any]:
    """Report to the pipeline how the stage ended, before it is sent to Prefect's server."""
    write_stage_exit(StageExit("Completed" if state.is_completed() else str(state.name), state.message or ""))
    return await final_state.record(state)


@contextmanager
def _open_stage(name: str) -> Iterator[StageRun]:
    params, entries = read_params(), stage_entries()
    if REQUESTED_STAGES in os.environ:
        requested = os.environ[REQUESTED_STAGES].split(",")
    else:  # a bare `dvc repro` without names runs all stages
        command = owner_process().command
        requested = list(entries) if "repro" in command and not set(command) & set(entries) else [name]
    later = list(entries)[list(entries).index(name) + 1 :]
    check_ready(params, [name, *(stage for stage in later if stage in requested)])
    entry = entries[name]
    inputs = file_digests(entry.inputs)
    delete_committed(committed_hashes())
    folder = stage_folder(name, settings=_settings_key(params, entry.sections), inputs=inputs)
    mark_incomplete(folder)
    hashes = {f"{DVC_TAG}{path}": hash_ for path, hash_ in data_hashes(entry.inputs).items()}
    with stage_run(
        name,
        params=params.model_dump(mode="json", include=set(entry.sections)),
        all_params=params.model_dump(mode="json"),
        tags={**hashes, "judge.kind": params.judge.kind},
        describe=describe_parent,
    ) as mlflow_run:
        yield StageRun(name, params, folder, mlflow_run, get_run_logger(), inputs)


def describe_parent(run_id: str) -> str:
    """Return the note of a pipeline's MLflow run, see `tasks.run_report`."""
    # Imported late: it brings in evaluation, which takes seconds and which a stage needs at its end at most.
    from longreward.tasks.run_report import describe_run

    return describe_run(run_id)


def _settings_key(params: Params, sections: Iterable[str]) -> str:
    """Return the settings in these sections that decide the result of a stage."""
    settings = params.model_dump(mode="json", include=set(sections))
    return json.dumps(without_runtime_settings(settings), sort_keys=True)


def _write_metrics(run: StageRun) -> str:
    """Write metrics, report and curves; return the report's MD5, which in `dvc.lock` shows that DVC has recorded it."""
    in_curves = {name for point in run.curves for name in point}  # another value would bend the curve in MLflow
    run.mlflow.log_metrics({name: value for name, value in run.metrics.items() if name not in in_curves})
    report = StageReport(run.name, run.mlflow.id, run.mlflow.parent, run.metrics)
    report_hash = report.write()
    curves = Path("plots") / f"{run.name}.csv"
    if curves in stage_entries()[run.name].outputs:
        columns = list(dict.fromkeys(column for point in run.curves for column in point)) or ["step", "loss"]
        write_points(curves, run.curves, columns)
    if run.mlflow.parent:
        link_stage(run.mlflow.parent, run.name, report.headline, stage_run_id=report.mlflow_run)
    return report_hash


async def _show_metrics(run: StageRun) -> None:
    """Show a table in the Prefect UI if the server can be reached; metrics/<stage>.json has the same values."""
    if not await server_answers():
        run.log.warning("Prefect's server does not answer: the stage goes on without its table of metrics in the UI")
        return
    try:
        await acreate_table_artifact(
            key=run.name,
            table=[{"metric": name, "value": value} for name, value in run.metrics.items()],
            description=f"Metrics of the stage {run.name}; MLflow run {run.mlflow.id}",
        )
    except httpx.HTTPError as error:
        run.log.warning("the table of metrics is not in Prefect: %s", redact(str(error)))


def write_points(path: Path, points: Iterable[Mapping[str, str | float]], columns: Sequence[str]) -> None:
    """Write the points of a DVC plot as CSV; without points the header alone, since DVC misses absent files."""
    with open_atomic(path) as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(points)


@dataclass(frozen=True)
class StageExit:
    """How the process of a stage ended, in a file for the pipeline that started it.

    The pipeline does not ask Prefect's server: a stage that has written its outputs counts even if the server is gone.
    `state` is "Running" (also after the process was killed), "Completed", or the name of an error.
    """

    state: str = "Running"
    message: str = ""


def stage_exit_file(task_run_id: UUID) -> Path:
    """Return the file for the stage of a task run, which does not exist yet."""
    file = make_folder(state_folder() / "stage-exits") / f"{task_run_id}.json"
    file.unlink(missing_ok=True)
    return file


def write_stage_exit(stage_exit: StageExit) -> None:
    """Write the file that the pipeline names; nothing under a bare `dvc repro`."""
    if name := os.environ.get(STAGE_EXIT):
        part = Path(name).with_suffix(".part")
        part.write_text(json.dumps(asdict(stage_exit)), encoding="utf-8")
        part.replace(name)


def pop_stage_exit(file: Path) -> StageExit | None:
    """Read and remove the file; None if the stage's flow did not start, as DVC found the stage up to date."""
    if not file.exists():
        return None
    stage_exit = StageExit(**json.loads(file.read_text(encoding="utf-8")))
    file.unlink()
    return stage_exit
