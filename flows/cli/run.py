"""`longreward run`: the pipeline from the shell; with its own settings, the run becomes an experiment."""

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from longreward.errors import UsageError
from longreward.flows.cli.options import add_override_argument
from longreward.flows.cli.parser import unknown_name


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    command = subparsers.add_parser(
        "run",
        help="run the pipeline, optionally with settings for this run only",
        description="Runs every stage that is not up to date; if all are, it prints the last results. With -S or "
        "--preset the run works in a private copy and becomes a DVC experiment: the checkout stays as it is, `dvc exp "
        "show` lists the experiment, `dvc exp apply NAME` applies it.",
        epilog="example: longreward run -S train.beta=0.3 -S train.epochs=2 --name beta-0.3",
    )
    command.add_argument("--stages", nargs="+", default=[], metavar="STAGE", help="only these stages")
    command.add_argument("--force", action="store_true", help="run stages even if nothing changed")
    add_override_argument(command)
    command.add_argument("--preset", metavar="NAME", help="use a file of configs/ instead of params.yaml")
    command.add_argument("--name", default="", help="the run's name in Prefect, DVC and MLflow (default: generated)")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    check_stages(options.stages)
    is_plain = not (options.force or options.overrides or options.preset or options.name)
    if is_plain and _report_if_up_to_date(options.stages):
        return 0
    return _run_pipeline(options)


def check_stages(names: Sequence[str]) -> None:
    """Raise UsageError, with the nearest name, if the project has no stage of one of these names."""
    from longreward.tasks.dvc_files import stage_entries

    stages = list(stage_entries())
    for name in names:
        if name not in stages:
            raise UsageError(unknown_name("stage", name, stages))


def _report_if_up_to_date(requested: list[str]) -> bool:
    """Print the last results if there is nothing to do; no run is recorded, since starting Prefect takes seconds."""
    from longreward.tasks.dvc_command import StageResult, has_nothing_to_do
    from longreward.tasks.dvc_files import stage_entries

    started = time.monotonic()
    stages = [stage for stage in stage_entries() if not requested or stage in requested]
    if len(stages) < len(set(requested)) or not asyncio.run(has_nothing_to_do()):
        return False
    from longreward.tasks.run_report import print_summary

    results = [StageResult(stage, ran=False, seconds=0.0) for stage in stages]
    print_summary(results, seconds=time.monotonic() - started)
    print("Nothing to do: every stage is up to date (`--force` runs them again).")
    return True


def _run_pipeline(options: argparse.Namespace) -> NoReturn:
    from longreward.params import preset_path
    from longreward.tasks.dvc_files import check_inputs
    from longreward.tasks.experiments import Settings
    from longreward.tasks.stage_processes import preload_models

    # Before Prefect is imported and its server starts, which takes seconds.
    settings = Settings(preset_path(options.preset) if options.preset else None, tuple(options.overrides))
    settings.check()
    if not settings:  # an experiment works in a private copy, with its own inputs and code
        check_inputs(options.stages)
        preload_models(options.stages)
    from longreward.flows.pipeline import shell_pipeline
    from longreward.tasks.flow_runner import final_state, run_as_program

    parameters = flow_parameters(options.overrides, preset=options.preset)
    parameters |= {"stages": options.stages, "force": options.force, "name": options.name}

    async def run() -> Any:
        state: Any = shell_pipeline(**parameters, return_state=True)
        return await state

    run_as_program(lambda: final_state.wait_for(run))


def flow_parameters(overrides: list[str], *, preset: str | None) -> dict[str, Any]:
    """Return the parameters of the pipeline's flow for these settings."""
    from longreward.params import parse_override
    from longreward.tasks.trigger_form import NO_PRESET

    # As JSON, a value has no line breaks, which separate overrides.
    lines = [f"{key}={json.dumps(value)}" for key, value in map(parse_override, overrides)]
    return {"preset": preset or NO_PRESET, "overrides": "\n".join(lines)}
