"""`longreward serve`: the Prefect UI, MLflow, and deployments to trigger."""

import argparse


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    command = subparsers.add_parser(
        "serve",
        help="the Prefect UI, MLflow and deployments to trigger, until Ctrl-C",
        description="Serves the Prefect UI and API, MLflow, and a deployment for the pipeline and for each stage, "
        "until Ctrl-C. The Prefect server asks for a login; the file that holds it is printed. MLflow listens on this "
        "machine alone.",
    )
    command.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="where Prefect listens (127.0.0.1)")
    command.add_argument("--port", type=_port, metavar="N", help="Prefect's port (4200, or a free one)")
    command.add_argument("--mlflow-port", type=_port, metavar="N", help="MLflow's port (5000, or a free one)")
    command.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a further name under which Prefect may be called, such as that of a proxy; may be repeated",
    )
    command.set_defaults(run=_serve)


def _port(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{number} is no port: 1 to 65535")
    return number


def _serve(options: argparse.Namespace) -> int:
    from longreward.flows.serve import main

    main(options.host, options.port, options.mlflow_port, tuple(options.allow_host))
    return 0
