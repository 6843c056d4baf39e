"""How a stage's process ended, written to a file for the pipeline that started it.

The pipeline could ask the Prefect server, but a stage that has written its model counts whether or not that server is
still there to be told.
"""

import csv
import hashlib
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
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
from longreward.tasks import tracking
from longreward.tasks.dvc_command import committed_hashes, data_hashes, stage_entries
from longreward.tasks.flow_runner import configure_logging, final_state, run_as_program, server_answers
from longreward.tasks.flow_runs import register_flow_run
from longreward.tasks.processes import ProcessRef, exit_with, parent_process
from longreward.tasks.state import (
    delete_committed,
    file_digests,
    make_folder,
    mark_complete,
    mark_incomplete,
    stage_folder,
    state_folder,
)
from longreward.utils.jsonl import open_atomic
from longreward.utils.redaction import redact

STAGE_EXIT = "LONGREWARD_OUTCOME"
RUNNING, COMPLETED = "Running", "Completed"


@dataclass(frozen=True)
class StageExit:
    """`state` is Running (also of a process that was killed), Completed, or the name of an error with its message."""

    state: str
    message: str = ""

    @property
    def is_final(self) -> bool:
        return self.state != RUNNING


def stage_exit_file(task_run: UUID) -> Path:
    """Where the stage of a task run leaves its outcome; nothing is there yet."""
    file = make_folder(state_folder() / "outcomes") / f"{task_run}.json"
    file.unlink(missing_ok=True)
    return file


def write_stage_exit(outcome: StageExit) -> None:
    """Writes it where `LONGREWARD_OUTCOME` says; nothing where no pipeline started this process."""
    if name := os.environ.get(STAGE_EXIT):
        file = Path(name)
        part = file.with_suffix(".part")
        part.write_text(json.dumps({"state": outcome.state, "message": outcome.message}), encoding="utf-8")
        part.replace(file)


def pop_stage_exit(file: Path) -> StageExit | None:
    """Reads and removes it; None where the stage's flow did not start, as DVC found the stage up to date."""
    try:
        found = StageExit(**json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    file.unlink()
    return found


# Points of DVC's plots, as CSV files.


def write_points(path: Path, points: Iterable[Mapping[str, str | float]], columns: Sequence[str]) -> None:
    """One row a point; the header alone where there are none, since DVC misses a file that is not there."""
    with open_atomic(path) as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(points)


# What every stage has in common, so that its flow holds only what it alone does.
#
#     @stage
#     async def pair(run: StageRun) -> None:
#         '''The best against the worst response to each prompt.'''
#         report = make_pairs(run.params.pair, …)
#         run.report(report.figures())
#
#     if __name__ == "__main__":
#         main(pair)
#
# The decorator makes the Prefect flow: it reads params.yaml, opens the MLflow run and the state folder, and at the end
# writes metrics/<stage>.json and a table for the Prefect UI. An error of ours ends the flow with its own message alone.


PARENT_TASK = "LONGREWARD_PARENT_TASK_RUN"  # the pipeline's task run under which the stage's flow run appears
PIPELINE = "LONGREWARD_PIPELINE_PROCESS"  # the pipeline's process, without which the stage must not go on
ASKED_FOR = "LONGREWARD_STAGES"  # the stages that the pipeline was asked for


@dataclass
class StageRun:
    """What a stage's flow works with."""

    name: str
    params: Params
    state: Path
    """The stage's own folder for shards and checkpoints: the same one for the same inputs, gone once DVC has recorded
    the stage's outputs."""
    tracked: tracking.Run
    """The MLflow run: `tracked.log(step, figures)` draws curves."""
    log: "logging.Logger | logging.LoggerAdapter[logging.Logger]"
    inputs: Mapping[Path, bytes] = field(default_factory=dict)
    """What the stage depends on, with digests."""
    figures: dict[str, float] = field(default_factory=dict)
    points: list[dict[str, float]] = field(default_factory=list)

    def report(self, figures: Mapping[str, float]) -> None:
        """Adds to the figures of metrics/<stage>.json, of the MLflow run and of its parent."""
        self.figures |= {name: float(value) for name, value in figures.items()}

    def shared(self, name: str, *, sections: Iterable[str], without: Iterable[Path]) -> Path:
        """A state folder for what does not depend on the inputs `without`, nor on other sections than these: runs that
        differ in nothing else find there what one of them made. It stays."""
        inputs = {path: digest for path, digest in self.inputs.items() if path not in set(without)}
        return stage_folder(name, settings=_as_key(self.params, sections), inputs=inputs)

    def curve(self, step: int, figures: Mapping[str, float]) -> None:
        """A point on each of the training's curves: live in MLflow, and in plots/<stage>.csv at the end."""
        self.tracked.log(step, figures)
        self.points.append({"step": float(step), **figures})


Body = Callable[[StageRun], Awaitable[None]]


def stage(body: Body) -> Flow[[], Any]:
    """The Prefect flow of the stage that is named as `body` is."""
    name = body.__name__

    @flow(name=name, description=body.__doc__, validate_parameters=False, persist_result=False)
    async def run() -> State[Any]:
        configure_logging()
        started = time.monotonic()
        try:
            with _opened(name) as opened:
                await body(opened)
                opened.report({"seconds": time.monotonic() - started})
                proof = _write_figures(opened)
                await _show_figures(opened)
            mark_complete(opened.state, proof)
        except LongRewardError as error:
            get_run_logger().error("%s: %s", type(error).__name__, error)
            return await _conclude(Failed(name=type(error).__name__, message=str(error)))
        return await _conclude(Completed(message=f"{name} done in {time.monotonic() - started:.1f} s"))

    return run


def main(stage_flow: Flow[[], Any]) -> None:
    """Runs a stage as `python -m longreward.flows.<stage>` does; the process ends with 0, or 1 where the stage failed.

    It ends too where the `dvc` command or the pipeline that started it is killed outright: left alone, it would write
    beside the next try.
    """
    pipeline = os.environ.get(PIPELINE)
    exit_with(parent_process(), *([ProcessRef.read(pipeline)] if pipeline else []))
    run_as_program(lambda: final_state.of(lambda: _run_under_parent(stage_flow)))


async def _run_under_parent(stage_flow: Flow[[], Any]) -> State[Any]:
    parent = os.environ.get(PARENT_TASK)
    async with get_client() as client:
        run = await client.create_flow_run(
            stage_flow, parent_task_run_id=UUID(parent) if parent else None, state=Pending()
        )
    write_stage_exit(StageExit(RUNNING))
    state: State[Any] = await run_flow(stage_flow, flow_run=run, return_type="state")  # type: ignore[misc]
    if final_state.state is None:  # an error that is none of ours
        write_stage_exit(StageExit(str(state.name), state.message or ""))
    return state


async def _conclude(state: State[Any]) -> State[Any]:
    """Tells the pipeline how the stage ended, before Prefect's server is told."""
    write_stage_exit(StageExit(COMPLETED if state.is_completed() else str(state.name), state.message or ""))
    return await final_state.note(state)


async def _show_figures(run: StageRun) -> None:
    """A table in the Prefect UI, where that can be reached: the figures are in metrics/<stage>.json too."""
    if not await server_answers():
        run.log.warning("Prefect's server does not answer: the stage goes on, its table of figures is left out")
        return
    try:
        await acreate_table_artifact(
            key=run.name,
            table=[{"figure": figure, "value": value} for figure, value in run.figures.items()],
            description=f"Figures of the stage {run.name}; MLflow run {run.tracked.id}",
        )
    except httpx.HTTPError as error:
        run.log.warning("the table of figures is not in Prefect: %s", redact(str(error)))


@contextmanager
def _opened(name: str) -> Iterator[StageRun]:
    with register_flow_run(str(flow_run.id)), _tracked(name) as run:
        yield run


@contextmanager
def _tracked(name: str) -> Iterator[StageRun]:
    params = read_params()
    check_ready(params, _ahead(name))
    entry = stage_entries()[name]
    settings = params.model_dump(mode="json", include=set(entry.sections))
    everything = params.model_dump(mode="json")
    inputs = file_digests(entry.inputs)
    delete_committed(committed_hashes())
    folder = stage_folder(name, settings=_as_key(params, entry.sections), inputs=inputs)
    mark_incomplete(folder)
    hashes = {f"dvc.{path}": hash_ for path, hash_ in data_hashes(entry.inputs).items()}
    tags = {**hashes, "judge.kind": params.judge.kind}
    with tracking.stage_run(name, settings=settings, all_settings=everything, tags=tags) as tracked:
        yield StageRun(name, params, folder, tracked, get_run_logger(), inputs)


def _as_key(params: Params, sections: Iterable[str]) -> str:
    """What of these sections decides a stage's result."""
    return json.dumps(without_runtime_settings(params.model_dump(mode="json", include=set(sections))), sort_keys=True)


def _ahead(name: str) -> list[str]:
    """This stage and those that will run after it, as far as whoever started it was asked for them."""
    entries = list(stage_entries())
    if ASKED_FOR in os.environ:
        asked_for = os.environ[ASKED_FOR].split(",")
    else:
        named = set(parent_process().command) & {*entries}
        asked_for = [name] if named or "repro" not in parent_process().command else entries
    return [name, *(other for other in entries[entries.index(name) + 1 :] if other in asked_for)]


def _write_figures(run: StageRun) -> str:
    """Write metrics/<stage>.json and return its MD5, by which DVC's lock file shows that DVC has recorded this run.

    The run ids in it let a later experiment, for which DVC skips this stage, point to this run.
    """
    drawn = {name for point in run.points for name in point}  # a last value of its own would bend the curve
    run.tracked.figures({name: value for name, value in run.figures.items() if name not in drawn})
    found = {**run.figures, "mlflow_run": run.tracked.id, "mlflow_parent": run.tracked.parent}
    text = json.dumps(found, indent=1) + "\n"
    with open_atomic(Path("metrics") / f"{run.name}.json") as file:
        file.write(text)
    curves = Path("plots") / f"{run.name}.csv"
    if curves in stage_entries()[run.name].outputs:
        _write_curves(curves, run.points)
    if run.tracked.parent:
        tracking.link_stage(run.tracked.parent, run.name, found)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _write_curves(path: Path, points: Sequence[Mapping[str, float]]) -> None:
    """One column a figure."""
    columns = list(dict.fromkeys(column for point in points for column in point)) or ["step", "loss"]
    write_points(path, points, columns)
