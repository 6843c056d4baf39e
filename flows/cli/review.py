"""`longreward review`: human labels of the judge's verdicts, and the judge's agreement with them."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from longreward.errors import ConfigError
from longreward.flows.cli.options import (
    add_actions,
    add_ledger_argument,
    add_settings_arguments,
    integer_between,
    load_settings,
)
from longreward.utils.plurals import pluralize

if TYPE_CHECKING:
    from longreward.human_labels.items import LabelSet

FOLDER = Path("data/labels")
SCORED = Path("data/scored/scored_responses.jsonl")
EXAMPLES = Path("data/prepared/preference.jsonl")
KIND_NAMES = ("support", "preference", "score")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    command = subparsers.add_parser(
        "review",
        help="label verdicts of the judge in MLflow, and measure the judge's agreement with the labels",
        description="Samples statements, pairs and scores of a finished score stage, shows them to reviewers in review "
        "queues of MLflow (without the judge's verdicts), reads the labels back, and reports Cohen's kappa and "
        "pairwise accuracy of the judge. Items and labels are in data/labels, which DVC tracks.",
    )
    actions = add_actions(command)
    create = actions.add_parser(
        "create",
        help="sample items and add them to MLflow's review queues",
        description="Samples items, stratified by dimension and margin, adds them to data/labels and to the review "
        "queues, and prints the queues' addresses. Repeating it changes nothing; more items or another seed add some.",
        epilog="example: longreward review create --items 90 --reviewer anna --reviewer ben",
    )
    _add_folder(create)
    create.add_argument("--scored", type=Path, default=SCORED, metavar="FILE", help=f"default: {SCORED}")
    create.add_argument(
        "--examples", type=Path, default=EXAMPLES, metavar="FILE", help=f"the scored prompts (default: {EXAMPLES})"
    )
    create.add_argument(
        "--items", type=integer_between(1), default=60, metavar="N", help="items of all kinds together (default: 60)"
    )
    create.add_argument("--seed", type=int, default=0, metavar="N", help="of the sample (default: 0)")
    create.add_argument(
        "--kind", action="append", choices=KIND_NAMES, help="only this kind of item; may be repeated (default: all)"
    )
    create.add_argument(
        "--reviewer",
        action="append",
        default=[],
        metavar="NAME",
        help="a reviewer with queues of their own; repeatable",
    )
    create.add_argument("--no-queues", action="store_true", help="only write the items, for `review page`")
    create.set_defaults(run=_create)

    page = actions.add_parser(
        "page",
        help="write the items as one HTML page, for reviewers without MLflow",
        description="Writes a page that requests nothing. Reviewers label in their browser and download a file that "
        "`longreward review import` reads.",
    )
    _add_folder(page)
    page.add_argument("--out", type=Path, default=Path("labels.html"), metavar="FILE", help="default: labels.html")
    page.set_defaults(run=_page)

    collect = actions.add_parser(
        "collect",
        help="read the labels from MLflow into data/labels",
        description="Reads the labels of all queues into data/labels/labels.jsonl and adds the folder to DVC.",
    )
    _add_folder(collect)
    collect.add_argument(
        "--reviewer", default="reviewer", metavar="NAME", help="who labelled a shared queue of a server without logins"
    )
    collect.add_argument(
        "--show-verdicts",
        action="store_true",
        help="also add the judge's verdicts to the labelled traces in MLflow, when labelling is finished",
    )
    collect.set_defaults(run=_collect)

    labels = actions.add_parser(
        "import",
        help="read labels from a CSV or JSON lines file",
        description="Rows need item and value, or texts and a value: context, query, response, dimension, score; or "
        "response_a, response_b, preferred; or statement, evidence, support.",
        epilog="example: longreward review import labels.csv --reviewer anna --column rating=score",
    )
    _add_folder(labels)
    labels.add_argument("file", type=Path, metavar="FILE", help="a .csv or .jsonl file")
    labels.add_argument("--reviewer", metavar="NAME", help="the reviewer of rows without one")
    labels.add_argument(
        "--column", action="append", default=[], metavar="THEIRS=OURS", help="another name of a column; repeatable"
    )
    labels.set_defaults(run=_import)

    report = actions.add_parser(
        "report",
        help="print the judge's agreement with the labels",
        description="Prints Cohen's kappa (plain and quadratic-weighted) and pairwise accuracy with 95 % intervals, "
        "for the judge and for a rater that only sees lengths; between reviewers where there are several.",
    )
    _add_folder(report)
    add_settings_arguments(report, default="params.yaml, if it exists")
    add_ledger_argument(report)
    report.add_argument(
        "--judge",
        action="store_true",
        help="judge the labelled items with the judge of the settings, in place of the verdicts of the sample",
    )
    report.add_argument(
        "--repeat",
        type=integer_between(1, 20),
        default=0,
        metavar="N",
        help="also send the judge's requests N more times, for its agreement with itself (implies --judge)",
    )
    report.add_argument("--disagreements", type=integer_between(0), default=10, metavar="N", help="shown (default: 10)")
    report.add_argument("--json", action="store_true", help="all figures as JSON")
    report.set_defaults(run=_report)


def _add_folder(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--labels", type=Path, default=FOLDER, metavar="FOLDER", help=f"the folder of items and labels ({FOLDER})"
    )


def _create(options: argparse.Namespace) -> int:
    from urllib.parse import urljoin

    from longreward.human_labels.items import KINDS
    from longreward.human_labels.sampling import sample_items
    from longreward.tasks.review_queues import create_queues
    from longreward.tasks.state import state_folder
    from longreward.tasks.ui_links import running_mlflow

    for path, option in ((options.scored, "--scored"), (options.examples, "--examples")):
        if not path.exists():
            raise ConfigError(f"{path} does not exist: run the stages up to score first, or name a file with {option}")
    kinds = [kind for kind in KINDS if kind in (options.kind or KINDS)]
    sampled = sample_items(options.scored, options.examples, count=options.items, seed=options.seed, kinds=kinds)
    before = _read(options.labels, missing_ok=True)
    labels = before.with_items(sampled)
    labels.write(options.labels)
    new = len(labels.items) - len(before.items)
    print(f"{options.labels}: {pluralize(len(labels.items), 'item')}, {new} of them new")
    if len(sampled) < options.items:
        print(f"  the score stage has only {len(sampled)} different items for a sample of {options.items}")
    _track(options.labels)
    if options.no_queues:
        return 0
    links = create_queues(list(labels.items.values()), options.reviewer)
    ui = running_mlflow(state_folder())
    for link in links:
        # A link of a tracking server is complete; others are relative to MLflow's UI, by default on this port.
        address = urljoin(ui or "http://127.0.0.1:5000", link.url)
        print(f"{link.name}: {pluralize(link.items, 'item')}, {link.new} new\n  {address}")
    if ui is None and any(link.url.startswith("/") for link in links):
        print("`longreward serve` opens MLflow; with another port, change it in these addresses")
    print("then: longreward review collect && longreward review report")
    return 0


def _page(options: argparse.Namespace) -> int:
    from longreward.human_labels.label_page import render_label_page
    from longreward.utils.jsonl import open_atomic

    items = list(_read(options.labels).items.values())
    with open_atomic(options.out) as file:
        file.write(render_label_page(items))
    print(f"{options.out}: {pluralize(len(items), 'item')}; then: longreward review import labels-NAME.jsonl")
    return 0


def _collect(options: argparse.Namespace) -> int:
    from longreward.tasks.review_queues import collect_labels, show_verdicts

    labels = _read(options.labels)
    collected = collect_labels(labels, options.reviewer)
    _write_labels(options.labels, labels, labels.with_labels(collected.labels))
    if collected.unlabelled:
        print(f"  {pluralize(collected.unlabelled, 'item')} of the queues without a label")
    if collected.unknown:
        print(f"  {pluralize(collected.unknown, 'item')} of the queues not in {options.labels}: from another sample")
    for sentence in collected.invalid:
        print(f"  not used: {sentence}")
    if options.show_verdicts:
        print(f"  {pluralize(show_verdicts(labels), 'verdict')} of the judge added to labelled traces")
    return 0


def _import(options: argparse.Namespace) -> int:
    from longreward.human_labels.tables import import_labels

    columns = dict(_parse_column(text) for text in options.column)
    before = _read(options.labels, missing_ok=True)
    labels = import_labels(options.file, before, reviewer=options.reviewer, columns=columns)
    _write_labels(options.labels, before, labels)
    return 0


def _parse_column(text: str) -> tuple[str, str]:
    theirs, separator, ours = text.partition("=")
    if not (separator and theirs and ours):
        raise ConfigError(f"--column {text!r} is not of the form THEIRS=OURS, as in rating=score")
    return theirs, ours


def _report(options: argparse.Namespace) -> int:
    import asyncio
    import json

    from longreward.human_labels.report import make_report, render_markdown, to_json
    from longreward.human_labels.verdicts import Verdicts, judge_rounds
    from longreward.utils.progress import log_progress_to_stderr, show_progress

    labels = _read(options.labels)
    name = ""
    rounds: list[Verdicts] = []
    if options.judge or options.repeat:
        default = Path("params.yaml") if Path("params.yaml").exists() else None
        params = load_settings(options, default=default)
        labelled = labels.by_item()
        items = [item for item in labels.items.values() if item.id in labelled]
        log_progress_to_stderr()
        with show_progress("verdicts") as progress:
            name, rounds = asyncio.run(
                judge_rounds(
                    items,
                    params.judge,
                    params.score,
                    rounds=1 + options.repeat,
                    ledger=options.ledger,
                    progress=progress,
                )
            )
    report = make_report(labels, judge=name, rounds=rounds)
    if options.json:
        print(json.dumps(to_json(report), indent=1, ensure_ascii=False))
    else:
        from longreward.utils.markdown_text import print_markdown

        print_markdown(render_markdown(report, shown=options.disagreements))
    return 0


def _read(folder: Path, *, missing_ok: bool = False) -> "LabelSet":
    from longreward.human_labels.items import LabelSet, items_file

    if not items_file(folder).exists():
        if missing_ok:
            return LabelSet({}, ())
        raise ConfigError(
            f"{items_file(folder)} does not exist: run `longreward review create` first, or name --labels"
        )
    return LabelSet.read(folder)


def _write_labels(folder: Path, before: "LabelSet", labels: "LabelSet") -> None:
    changed = len(set(labels.labels) - set(before.labels))
    labels.write(folder)
    size = f"{pluralize(len(labels.labels), 'label')} of {pluralize(len(labels.by_item()), 'item')}"
    print(f"{folder}: {size}, {changed} new or changed")
    _track(folder)


def _track(folder: Path) -> None:
    """Add the folder to DVC: labels are data that no stage can make again."""
    import asyncio

    from longreward.tasks.dvc_command import add_data

    if asyncio.run(add_data(folder)):
        print(f"  DVC tracks it: commit {folder}.dvc to git to keep this version")
    else:
        print("  this is no DVC repository, so the labels are not versioned")
