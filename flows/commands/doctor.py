"""`longreward doctor`: check versions, servers, keys, GPU, disk and DVC, and say what to do."""

import argparse


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the subcommand."""
    command = commands.add_parser("doctor", help="check versions, servers, keys, GPU, disk and DVC, and say what to do")
    command.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    raise NotImplementedError
