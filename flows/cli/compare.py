"""`longreward compare`: two runs side by side: settings, metrics with intervals, prompts."""

import argparse


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    command = subparsers.add_parser(
        "compare",
        help="two runs side by side: settings, metrics with intervals, prompts",
        description="What differs between two runs: their settings and data, the measures of both trained models with "
        "intervals of the difference, and the prompts whose answers moved most. Differences are B minus A. Everything "
        "comes from MLflow (MLFLOW_TRACKING_URI, or this project's own store).",
        epilog="example: longreward compare champion last",
    )
    run = "a run's name (the newest of that name), its MLflow id, champion, last, or last~1: the one before"
    command.add_argument("first", metavar="A", help=run)
    command.add_argument("second", metavar="B", help="the same")
    command.add_argument("--measure", metavar="NAME", help="ranks the prompts (default: the champion rule's)")
    command.add_argument("--top", type=_count, default=5, metavar="N", help="how many prompts to show (default: 5)")
    shape = command.add_mutually_exclusive_group()
    shape.add_argument("--markdown", action="store_true", help="as Markdown")
    shape.add_argument("--json", action="store_true", help="as JSON, with all intervals")
    command.set_defaults(run=_compare)


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} is less than 0")
    return number


def _compare(options: argparse.Namespace) -> int:
    import json
    import os

    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # somebody waits; MLflow would try for minutes
    from longreward.tasks.mlflow_comparison import as_json, compare, markdown, show
    from longreward.tasks.tracking.history import find_run

    model = _registered_model()
    first, second = (find_run(name, registered_model=model) for name in (options.first, options.second))
    comparison = compare(first, second, measure=options.measure, top=options.top)
    if options.json:
        print(json.dumps(as_json(comparison), indent=1, ensure_ascii=False))
    elif options.markdown:
        print(markdown(comparison), end="")
    else:
        show(comparison)
    return 0


def _registered_model() -> str:
    """This project's, where it is one; else the default, as a shared MLflow server can be asked from any folder."""
    from pathlib import Path

    from longreward.params import Params, read_params

    params = read_params() if Path("params.yaml").exists() else Params()
    return params.evaluate.registered_model
