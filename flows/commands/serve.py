"""`longreward serve`: the Prefect UI, MLflow, and deployments to trigger."""

import argparse


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the subcommand."""
    command = commands.add_parser("serve", help="the Prefect UI, MLflow and deployments to trigger, until Ctrl-C")
    command.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> int:
    from flows.serve import main

    main()
    return 0
