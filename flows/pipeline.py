"""The flow that users trigger: every stage through DVC, under one MLflow run, with a table at its end.

    longreward run                                     all stages that are not up to date
    longreward run --stages score pair                 these only
    longreward run --force --stages train              again, though nothing changed
    longreward run -S train.beta=0.3 --name beta-0.3   an experiment: the checkout stays as it is

Each stage is `dvc repro --single-item` in a process of its own, so what this ran is up to date for `dvc repro`, and the
other way round. Settings of a run's own apply in a private copy, which becomes a DVC experiment.
"""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from prefect import Flow, flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from longreward.errors import ConfigError, LongRewardError
from longreward.params import read_params
from longreward.tasks import tracking, trigger_form
from longreward.tasks.dvc_command import check_inputs, repair_locks, stage_entries
from longreward.tasks.experiments import Settings, check_name, private_copy
from longreward.tasks.flow_runner import configure_logging, final_state
from longreward.tasks.flow_runs import register_flow_run
from longreward.tasks.pipeline_lock import pipeline_lock
from longreward.tasks.pipeline_tasks import (
    StageResult,
    add_raw_data,
    close_killed_flows,
    push_data,
    reproduce_stage,
    show_waiting,
    stage_task_runs,
)
from longreward.tasks.run_summary import show


def trigger(stage: str | None = None, *, module: str = __name__, from_shell: bool = False) -> Flow[..., Any]:
    """The pipeline, or one stage of it, with the form that the Prefect UI shows.

    `from_shell` takes every setting; without it, none that only files may set (`tasks.trigger_form.check_trigger`).
    Only flows without it are deployed, so that nobody gets past the check by a request to the API.
    """

    async def run(**given: Any) -> State[Any]:
        return await bring_up_to_date(stage, given, from_shell=from_shell)

    run.__name__ = run.__qualname__ = stage or "pipeline"
    run.__module__ = module
    run.__signature__ = trigger_form.form_signature(stage)  # type: ignore[attr-defined]
    what = f"The stage {stage} alone" if stage else "From raw data to a trained, evaluated, registered model"
    run.__doc__ = (
        f"{what}. Settings given here hold for this run alone: it takes place in a private copy of the checkout, and "
        "becomes a DVC experiment of the run's name."
    )
    return flow(name="pipeline", persist_result=False)(run)


pipeline = trigger()
shell_pipeline = trigger(from_shell=True)


async def bring_up_to_date(stage: str | None, given: dict[str, Any], *, from_shell: bool) -> State[Any]:
    """What a trigger asks for, in the order of the graph; an error of ours ends it with its own message."""
    configure_logging()
    try:
        chosen = trigger_form.parse_trigger(stage, given)
        stages = _known(chosen.stages)
        if not from_shell:
            trigger_form.check_trigger(chosen.settings)
        chosen.settings.check()
        if chosen.settings:
            check_name(flow_run.name)
        with register_flow_run(str(flow_run.id)):
            outcomes = await _run(stages, force=chosen.force, settings=chosen.settings)
    except LongRewardError as error:
        get_run_logger().error("%s: %s", type(error).__name__, error)
        return await final_state.note(Failed(name=type(error).__name__, message=str(error)))
    ran = [outcome.stage for outcome in outcomes if outcome.ran]
    return await final_state.note(Completed(message=f"ran {', '.join(ran)}" if ran else "nothing to do"))


async def _run(stages: list[str], *, force: bool, settings: Settings) -> list[StageResult]:
    started, name, run_id = time.monotonic(), flow_run.name, str(flow_run.id)
    async with pipeline_lock(name, show_waiting, experiment=bool(settings)), stage_task_runs(stages) as rows:
        await close_killed_flows()
        repair_locks()
        async with private_copy(name, settings) if settings else nullcontext():
            await add_raw_data()
            check_inputs(stages)
            params = read_params().model_dump(mode="json")
            with tracking.parent_run(name, params, flow_run=run_id, overrides=settings.as_text) as parent:
                outcomes = [
                    await reproduce_stage(row, asked_for=stages, force=force, parent=parent) for row in rows.values()
                ]
            await push_data()
            show(outcomes, seconds=time.monotonic() - started)
    return outcomes


def _known(stages: Sequence[str] | None) -> list[str]:
    known = list(stage_entries())
    unknown = [name for name in stages or () if name not in known]
    if unknown:
        raise ConfigError(f"unknown stage {unknown[0]!r}; the stages are {', '.join(known)}")
    return [name for name in known if not stages or name in stages]
