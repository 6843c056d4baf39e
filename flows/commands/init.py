"""`longreward init`: a new project folder for your own data."""

import argparse


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the subcommand."""
    command = commands.add_parser("init", help="a new project folder for your own data")
    command.set_defaults(run=_init)


def _init(options: argparse.Namespace) -> int:
    raise NotImplementedError
