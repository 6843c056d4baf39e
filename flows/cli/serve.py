"""`longreward serve`: the Prefect UI, MLflow and deployments to trigger."""

import argparse

from longreward.flows.cli.options import integer_between


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    command = subparsers.add_parser(
        "serve",
        help="the Prefect UI, MLflow and deployments to trigger, until Ctrl-C",
        description="Serves the Prefect UI and API, MLflow, and a deployment for the pipeline and for each stage, "
        "until Ctrl-C. The Prefect server requires a login; the path of the file that contains it is printed. MLflow "
        "listens on this machine only.",
    )
    port = integer_between(1, 65535)
    command.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="the address on which Prefect listens (127.0.0.1)"
    )
    command.add_argument("--port", type=port, metavar="N", help="Prefect's port (4200, or a free one)")
    command.add_argument("--mlflow-port", type=port, metavar="N", help="MLflow's port (5000, or a free one)")
    command.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="another host name that Prefect accepts, such as that of a proxy; can be repeated",
    )
    command.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> int:
    from longreward.flows.serve import serve

    serve(options.host, options.port, options.mlflow_port, tuple(options.allow_host))
    return 0
