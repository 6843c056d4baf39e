"""`longreward compare`: two runs side by side: settings, metrics with intervals, prompts."""

import argparse


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the subcommand."""
    command = commands.add_parser("compare", help="two runs side by side: settings, metrics with intervals, prompts")
    command.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> int:
    raise NotImplementedError
