"""`longreward run`: the pipeline from the shell; with settings of its own it is an experiment."""

import argparse
from typing import Any, NoReturn


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    command = subparsers.add_parser(
        "run",
        help="run the pipeline, also with settings for this run alone",
        description="Brings every stage up to date. With -S or --preset the run takes place in a private copy and "
        "becomes a DVC experiment: the checkout stays as it is, `dvc exp show` lists it, `dvc exp apply NAME` brings "
        "it back.",
        epilog="example: longreward run -S train.beta=0.3 -S train.epochs=2 --name beta-0.3",
    )
    command.add_argument("--stages", nargs="+", metavar="STAGE", help="only these")
    command.add_argument("--force", action="store_true", help="even where nothing changed")
    command.add_argument(
        "-S", dest="overrides", action="append", default=[], metavar="section.key=value", help="a setting of this run"
    )
    command.add_argument("--preset", metavar="NAME", help="a file of configs/ in place of params.yaml")
    command.add_argument("--name", help="what the run is called in Prefect, DVC and MLflow (default: a made-up name)")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> NoReturn:
    from prefect.client.schemas.objects import State

    from longreward.flows.pipeline import shell_pipeline
    from longreward.params import parse_override, preset_path
    from longreward.tasks.experiments import Settings
    from longreward.tasks.flow_runner import final_state, run_as_program

    Settings(preset_path(options.preset) if options.preset else None, tuple(options.overrides)).check()
    overrides = dict(parse_override(override) for override in options.overrides)
    named = shell_pipeline.with_options(flow_run_name=options.name) if options.name else shell_pipeline

    async def finished() -> State[Any]:
        asked: Any = named(
            stages=options.stages,
            force=options.force,
            preset=options.preset,
            overrides=overrides,
            return_state=True,
        )
        state: State[Any] = await asked
        return state

    run_as_program(lambda: final_state.of(finished))
