"""The flow that users trigger: every stage through DVC, under one MLflow run, with a table at its end.

    make run                                         all stages that are not up to date
    python -m flows.pipeline --stages score pair     these only
    python -m flows.pipeline --force --stages train  again, though nothing changed

Each stage is `dvc repro --single-item` in a process of its own, so what this ran is up to date for `dvc repro`, and the
other way round.
"""

import argparse
import time
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from longreward.errors import ConfigError, LongRewardError
from longreward.params import read_params
from tasks import tracking
from tasks.logs import settle_logs
from tasks.program import run_program
from tasks.reproduction import StageOutcome, add_raw_data, close_killed, push_data, reproduce_stage, stage_rows
from tasks.summary import show
from tasks.turn import turn
from tasks.versioning import stage_entries


@flow(name="pipeline", validate_parameters=True, persist_result=False)
async def pipeline(stages: list[str] | None = None, force: bool = False) -> State[Any]:
    """From raw data to a trained, evaluated, registered model.

    Args:
        stages: Which stages to bring up to date; all where none is named.
        force: Run them even where nothing changed.
    """
    settle_logs()
    try:
        outcomes = await _run(_chosen(stages), force=force)
    except LongRewardError as error:
        get_run_logger().error("%s: %s", type(error).__name__, error)
        return Failed(name=type(error).__name__, message=str(error))
    ran = [outcome.stage for outcome in outcomes if outcome.ran]
    return Completed(message=f"ran {', '.join(ran)}" if ran else "nothing to do")


async def _run(stages: list[str], *, force: bool) -> list[StageOutcome]:
    started = time.monotonic()
    async with turn(str(flow_run.id)) as killed, stage_rows(stages) as rows:
        if killed:
            await close_killed(UUID(killed))
        await add_raw_data()
        with tracking.experiment(flow_run.name, read_params().model_dump(mode="json")) as parent:
            outcomes = [await reproduce_stage(row, force=force, parent=parent) for row in rows.values()]
        await push_data()
    show(outcomes, seconds=time.monotonic() - started)
    return outcomes


def _chosen(stages: list[str] | None) -> list[str]:
    known = list(stage_entries())
    unknown = [name for name in stages or () if name not in known]
    if unknown:
        raise ConfigError(f"unknown stage {unknown[0]!r}; the stages are {', '.join(known)}")
    return [name for name in known if not stages or name in stages]


async def _finished(stages: list[str] | None, *, force: bool) -> State[Any]:
    return await pipeline(stages=stages, force=force, return_state=True)


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m flows.pipeline", description=pipeline.description)
    arguments.add_argument("--stages", nargs="+", metavar="STAGE", help="only these")
    arguments.add_argument("--force", action="store_true", help="even where nothing changed")
    chosen = arguments.parse_args()
    run_program(lambda: _finished(chosen.stages, force=chosen.force))


if __name__ == "__main__":
    main()
