"""`longreward run`: run the pipeline, with settings of this run alone."""

import argparse


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the subcommand."""
    command = commands.add_parser("run", help="run the pipeline, with settings of this run alone")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    raise NotImplementedError
