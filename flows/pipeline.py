"""The pipeline: a flow that runs the stages through DVC under one MLflow run and ends with a table of results.

    longreward run                                     all stages that are not up to date
    longreward run --stages score pair                 only these
    longreward run --force --stages train              even if nothing has changed
    longreward run -S train.beta=0.3 --name beta-0.3   an experiment: the checkout stays as it is

Each stage runs as `dvc repro --single-item` in its own process, so that its results are up to date for `dvc repro`
too. A run with its own settings works in a private copy of the checkout, which becomes a DVC experiment.
"""

import logging
import time
from contextlib import nullcontext
from functools import partial
from typing import Any

from prefect import Flow, flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from longreward.errors import ConfigError, LongRewardError
from longreward.params import read_params
from longreward.tasks.console_log import UI_ONLY
from longreward.tasks.dvc_command import StageResult, repair_locks
from longreward.tasks.dvc_files import check_inputs, stage_entries
from longreward.tasks.evidence_pages import log_evidence_page
from longreward.tasks.experiments import Settings, check_name, private_copy
from longreward.tasks.flow_runner import configure_logging, final_state
from longreward.tasks.flow_runs import close_killed_flows, register_flow_run
from longreward.tasks.interruption import Interrupted, cancelled_state, stop_on_signals
from longreward.tasks.pipeline_lock import pipeline_lock
from longreward.tasks.pipeline_tasks import (
    add_raw_data,
    fork_stages,
    push_data,
    reproduce_stage,
    show_waiting,
    stage_task_runs,
)
from longreward.tasks.result_artifact import create_result_artifact
from longreward.tasks.run_names import pipeline_run_name
from longreward.tasks.run_report import print_summary
from longreward.tasks.stage import describe_parent
from longreward.tasks.tracking.history import last_runs_are_evaluated
from longreward.tasks.tracking.run import Run
from longreward.tasks.tracking.run_hierarchy import parent_run
from longreward.tasks.trigger_form import add_form, check_trigger, parse_trigger

log = logging.getLogger(__name__)


def create_flow(stage: str | None = None, *, module: str = __name__, from_shell: bool = False) -> Flow[..., Any]:
    """Create the flow of the pipeline, or of one stage alone, with the form that the Prefect UI shows.

    With `from_shell`, a run may change every setting; otherwise `check_trigger` rejects some of them. Only flows
    without it are deployed, so that a request to the API cannot circumvent the check.
    """

    async def run(**parameters: Any) -> State[Any]:
        return await run_pipeline(stage, parameters, from_shell=from_shell)

    run.__name__ = run.__qualname__ = stage or "pipeline"
    run.__module__ = module
    add_form(run, stage)
    summary = f"Runs the stage {stage}" if stage else "From raw data to a trained, evaluated, registered model"
    description = (
        f"{summary}. Settings entered here apply to this run only: it works in a private copy of the checkout, and "
        "becomes a DVC experiment with the name of the run."
    )
    return flow(
        name="pipeline",
        description=description,
        flow_run_name=partial(_run_name, stage),
        validate_parameters=not from_shell,  # `run_pipeline` reports wrong ones in one line, Prefect with a traceback
        persist_result=False,
    )(run)


def _run_name(stage: str | None) -> str:
    parameters = flow_run.parameters
    stages = (stage,) if stage else tuple(parameters.get("stages") or ())
    return pipeline_run_name(stages, requested=parameters.get("name") or "", current=flow_run.name or "")


async def run_pipeline(stage: str | None, parameters: dict[str, Any], *, from_shell: bool) -> State[Any]:
    """Run the requested stages in the order of the graph; a LongRewardError becomes the state's message."""
    configure_logging()
    try:
        trigger = parse_trigger(stage, parameters)
        stages = list(stage_entries())
        if unknown := [name for name in trigger.stages or () if name not in stages]:
            raise ConfigError(f"unknown stage {unknown[0]!r}; the stages are {', '.join(stages)}")
        stages = [name for name in stages if not trigger.stages or name in trigger.stages]
        if not from_shell:
            check_trigger(trigger.settings)
        trigger.settings.check()
        if trigger.settings:
            check_name(flow_run.name)
        log.info("run %s starts; `longreward serve` in another terminal shows it", flow_run.name)
        with register_flow_run(str(flow_run.id)), stop_on_signals():
            results = await _run_stages(stages, force=trigger.force, settings=trigger.settings)
    except LongRewardError as error:
        get_run_logger().error("%s: %s", type(error).__name__, error, extra=UI_ONLY)
        return await final_state.record(Failed(name=type(error).__name__, message=str(error)))
    except Interrupted:
        state = cancelled_state()
        get_run_logger().warning("%s", state.message)
        return await final_state.record(state)
    ran = [result.stage for result in results if result.ran]
    return await final_state.record(Completed(message=f"ran {', '.join(ran)}" if ran else "nothing to do"))


async def _run_stages(stages: list[str], *, force: bool, settings: Settings) -> list[StageResult]:
    name, run_id = flow_run.name, str(flow_run.id)
    async with pipeline_lock(name, show_waiting, experiment=bool(settings)), stage_task_runs(stages) as task_runs:
        started = time.monotonic()  # without the time that this run waited for others
        await close_killed_flows()
        repair_locks()
        async with private_copy(name, settings) if settings else nullcontext(), fork_stages(stages):
            await add_raw_data()
            check_inputs(stages)
            params = read_params().model_dump(mode="json")
            parent = None
            try:
                with parent_run(
                    name, params, flow_run=run_id, overrides=settings.as_text, describe=describe_parent
                ) as parent:
                    results = [
                        await reproduce_stage(task_run, requested=stages, force=force, parent=parent, run_name=name)
                        for task_run in task_runs.values()
                    ]
                await push_data()
                has_page = log_evidence_page(Run(parent), read_params(), title=name, stages=stages)
            finally:  # also of a run that failed or was interrupted
                if parent is not None:
                    await create_result_artifact(parent, experiment=name if settings else None)
            # The files of an experiment are not in the checkout, but its page is in MLflow.
            view = f"longreward view {name}" if settings else "longreward view"
            print_summary(
                results,
                seconds=time.monotonic() - started,
                view=view if has_page else None,
                comparable=last_runs_are_evaluated(),
            )
    return results


pipeline = create_flow()
shell_pipeline = create_flow(from_shell=True)
