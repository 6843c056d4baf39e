"""`longreward compare`: two runs side by side: settings, metrics with intervals, prompts."""

import argparse
from pathlib import Path

from longreward.flows.cli.options import integer_between


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    command = subparsers.add_parser(
        "compare",
        help="two runs side by side: settings, metrics with intervals, prompts",
        description="Shows how two runs differ: their settings and data, the metrics of both trained models with "
        "confidence intervals of the difference, and the prompts whose metrics changed most. Differences are B minus "
        "A. All data comes from MLflow (MLFLOW_TRACKING_URI, or this project's own store).",
        epilog="example: longreward compare champion last",
    )
    run_help = "a run's name (the newest of that name), its MLflow id, champion, last, or last~1: the one before"
    command.add_argument("first", metavar="A", help=run_help)
    command.add_argument("second", metavar="B", help="likewise")
    command.add_argument(
        "--measure", metavar="NAME", help="the metric that ranks the prompts (default: the champion rule's)"
    )
    command.add_argument(
        "--top", type=integer_between(0), default=5, metavar="N", help="the number of prompts to show (default: 5)"
    )
    output = command.add_mutually_exclusive_group()
    output.add_argument("--markdown", action="store_true", help="as Markdown")
    output.add_argument("--json", action="store_true", help="as JSON, with all intervals")
    command.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> int:
    import json
    import os

    # Before MLflow is imported; by default it retries for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    from longreward.params import Params, read_params
    from longreward.tasks.mlflow_comparison import compare, print_comparison, to_json, to_markdown
    from longreward.tasks.tracking.history import find_run

    # Outside a project too: a shared MLflow server can be used from any folder.
    params = read_params() if Path("params.yaml").exists() else Params()
    model = params.evaluate.registered_model
    first, second = (find_run(name, registered_model=model) for name in (options.first, options.second))
    comparison = compare(first, second, measure=options.measure, top=options.top)
    if options.json:
        print(json.dumps(to_json(comparison), indent=1, ensure_ascii=False))
    elif options.markdown:
        print(to_markdown(comparison), end="")
    else:
        print_comparison(comparison)
    return 0
