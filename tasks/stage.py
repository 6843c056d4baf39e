"""What every stage has in common, so that its flow holds only what it alone does.

    @stage
    async def pair(run: StageRun) -> None:
        '''The best against the worst response to each prompt.'''
        report = make_pairs(run.params.pair, …)
        run.report(report.figures())

    if __name__ == "__main__":
        main(pair)

The decorator makes the Prefect flow: it reads params.yaml, opens the MLflow run and the state folder, and at the end
writes metrics/<stage>.json and a table for the Prefect UI. An error of ours ends the flow with its own message alone.
"""

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
from longreward.params import Params, deciding, read_params
from longreward.tasks import tracking
from longreward.tasks.dvc_command import committed_hashes, data_hashes, stage_entries
from longreward.tasks.flow_run_files import registered
from longreward.tasks.logs import configure_logging
from longreward.tasks.parent_process import ParentProcess, parent_process
from longreward.tasks.plots import write_points
from longreward.tasks.process_group import end_with
from longreward.tasks.program import conclusion, run_program, server_answers
from longreward.tasks.stage_outcome import COMPLETED, RUNNING, Outcome, write_outcome
from longreward.tasks.state import digests, forget_finished, mark_finished, stage_folder, unmark_finished
from longreward.utils.jsonl import open_atomic
from longreward.utils.redaction import redact

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
            mark_finished(opened.state, proof)
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
    end_with(parent_process(), *([ParentProcess.read(pipeline)] if pipeline else []))
    run_program(lambda: conclusion.of(lambda: _run_under_parent(stage_flow)))


async def _run_under_parent(stage_flow: Flow[[], Any]) -> State[Any]:
    parent = os.environ.get(PARENT_TASK)
    async with get_client() as client:
        run = await client.create_flow_run(
            stage_flow, parent_task_run_id=UUID(parent) if parent else None, state=Pending()
        )
    write_outcome(Outcome(RUNNING))
    state: State[Any] = await run_flow(stage_flow, flow_run=run, return_type="state")  # type: ignore[misc]
    if conclusion.state is None:  # an error that is none of ours
        write_outcome(Outcome(str(state.name), state.message or ""))
    return state


async def _conclude(state: State[Any]) -> State[Any]:
    """Tells the pipeline how the stage ended, before Prefect's server is told."""
    write_outcome(Outcome(COMPLETED if state.is_completed() else str(state.name), state.message or ""))
    return await conclusion.note(state)


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
    with registered(str(flow_run.id)), _tracked(name) as run:
        yield run


@contextmanager
def _tracked(name: str) -> Iterator[StageRun]:
    params = read_params()
    check_ready(params, _ahead(name))
    entry = stage_entries()[name]
    settings = params.model_dump(mode="json", include=set(entry.sections))
    everything = params.model_dump(mode="json")
    inputs = digests(entry.inputs)
    forget_finished(committed_hashes())
    folder = stage_folder(name, settings=_as_key(params, entry.sections), inputs=inputs)
    unmark_finished(folder)
    hashes = {f"dvc.{path}": hash_ for path, hash_ in data_hashes(entry.inputs).items()}
    tags = {**hashes, "judge.kind": params.judge.kind}
    with tracking.stage_run(name, settings=settings, all_settings=everything, tags=tags) as tracked:
        yield StageRun(name, params, folder, tracked, get_run_logger(), inputs)


def _as_key(params: Params, sections: Iterable[str]) -> str:
    """What of these sections decides a stage's result."""
    return json.dumps(deciding(params.model_dump(mode="json", include=set(sections))), sort_keys=True)


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
