"""`longreward view`: prompts, responses, verdicts and evidence as a page in the browser."""

import argparse
from pathlib import Path

from longreward.flows.cli.options import integer_between

DEFAULT_LIMIT = 1000


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    command = subparsers.add_parser(
        "view",
        help="prompts, responses, verdicts and evidence as a page in the browser",
        description="Writes one HTML file, which needs no server and makes no request, and opens it: each prompt with "
        "its ranked responses and its pair, statements with their evidence in the document, extracts, scores and the "
        "judge's replies; answers of the SFT model next to the trained model's; flags and comments for pair.exclude.",
        epilog="examples: longreward view; longreward view last --no-open --out evidence.html",
    )
    command.add_argument(
        "name",
        nargs="?",
        metavar="RUN",
        help="the page that this run logged to MLflow: a run's name, its MLflow id, champion, last, or last~1 "
        "(default: the project's present files)",
    )
    command.add_argument("--out", type=Path, metavar="FILE", help="where to write the page (.longreward/view)")
    command.add_argument(
        "--limit",
        type=integer_between(1),
        metavar="N",
        help=f"prompts per collection, without a run ({DEFAULT_LIMIT:,}); training prompts are evenly spaced, and of "
        "evaluation and benchmarks those with the largest differences are shown",
    )
    command.add_argument(
        "--open",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="open the page in the browser (default: if the output is a terminal)",
    )
    command.set_defaults(run=_view)


def _view(options: argparse.Namespace) -> int:
    import sys

    out = _write_logged_page(options) if options.name is not None else _write_present_page(options)
    print(out)
    if options.open if options.open is not None else sys.stdout.isatty():
        import webbrowser

        if not webbrowser.open(out.resolve().as_uri()):
            print(f"longreward: there is no browser here; open {out} in one", file=sys.stderr)
    return 0


def _write_present_page(options: argparse.Namespace) -> Path:
    from longreward.errors import ConfigError
    from longreward.params import read_params
    from longreward.tasks.evidence_pages import project_page
    from longreward.tasks.state import state_folder

    params = read_params()
    page = project_page(params, title=Path.cwd().name, limit=options.limit or DEFAULT_LIMIT)
    if not page.collections:
        raise ConfigError("there is nothing to view in data/ yet: run `longreward run` first, or name an earlier run")
    out = options.out or state_folder() / "view" / "evidence.html"
    page.write(out)
    return Path(out)


def _write_logged_page(options: argparse.Namespace) -> Path:
    import os

    # Before MLflow is imported; by default it retries for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    from longreward.errors import ConfigError
    from longreward.params import Params, read_params
    from longreward.tasks.evidence_pages import ARTIFACT
    from longreward.tasks.state import state_folder
    from longreward.tasks.tracking.history import find_run, read_text_artifact
    from longreward.utils.jsonl import open_atomic

    if options.limit is not None:
        raise ConfigError("--limit is for the project's present files; a run's page has the prompts that it logged")
    params = read_params() if Path("params.yaml").exists() else Params()
    run = find_run(options.name, registered_model=params.evaluate.registered_model)
    page = read_text_artifact(run.id, ARTIFACT, advice="only runs that scored, paired or evaluated have a page")
    out = options.out or state_folder() / "view" / f"{run.id}.html"
    with open_atomic(out) as file:
        file.write(page)
    return Path(out)
