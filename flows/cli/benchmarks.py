"""`longreward benchmarks fetch|list`: the published files of the benchmarks, pinned and checksummed."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from longreward.benchmarks.files import Outcome, Source

FOLDER = "data/benchmarks"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    command = subparsers.add_parser(
        "benchmarks",
        help="the public benchmarks' files: fetch, list",
        description="The published files of the benchmarks. None is part of this program: they are fetched from where "
        "they are published, at a pinned commit, and held to their checksums.",
    )

    def without_action(_: argparse.Namespace) -> int:
        command.print_help()
        return 2

    command.set_defaults(run=without_action)
    actions = command.add_subparsers(title="actions", metavar="")
    one = actions.add_parser(
        "fetch",
        help="downloads what is missing and checks what is there",
        description="Downloads what is missing and checks what is there. An interrupted download goes on where it "
        "stopped. Exits with 1 where a needed file could not be had, and says where it goes.",
        epilog="example: longreward benchmarks fetch --only mt_bench",
    )
    _add_selection(one)
    where = one.add_mutually_exclusive_group()
    where.add_argument("--mirror", metavar="URL", help="below which the files lie as <benchmark>/<file>")
    where.add_argument("--from", dest="local", type=Path, metavar="FOLDER", help="copy them from here, without network")
    one.set_defaults(run=_fetch)
    one = actions.add_parser("list", help="every file with its source, licence and state; touches no network")
    _add_selection(one)
    one.set_defaults(run=_list)


def _add_selection(action: argparse.ArgumentParser) -> None:
    action.add_argument("--folder", type=Path, default=Path(FOLDER), metavar="FOLDER", help=f"default: {FOLDER}")
    action.add_argument(
        "--only", action="append", default=[], metavar="BENCHMARK", help="as mt_bench; may be given again"
    )


def _fetch(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn

    from longreward.benchmarks.files import fetch

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:

        def tell(source: "Source", size: int) -> None:
            if source.key not in tasks:
                tasks[source.key] = bar.add_task(source.key, total=source.bytes)
            bar.update(tasks[source.key], completed=size)

        outcomes = fetch(options.folder, only=options.only, mirror=options.mirror, local=options.local, tell=tell)
    for outcome in outcomes:
        print(_shown(outcome))
    bad = sum(outcome.is_bad for outcome in outcomes)
    print(f"{len(outcomes) - sum(o.state == 'failed' for o in outcomes)} of {len(outcomes)} files in {options.folder}")
    return 1 if bad else 0


def _shown(outcome: "Outcome") -> str:
    if outcome.state == "failed":
        return f"{'missing ' if outcome.is_bad else 'optional'}  {outcome.source.key}: {outcome.reason}"
    recorded = f" (sha256 {outcome.recorded}, held to from now on)" if outcome.recorded else ""
    return f"{outcome.state:<8}  {outcome.source.key}{recorded if outcome.state == 'fetched' else ''}"


def _list(options: argparse.Namespace) -> int:
    from longreward.benchmarks.files import read_table
    from longreward.benchmarks.files.lock import Lock

    lock = Lock(options.folder)
    for source in read_table(options.only):
        there = all((options.folder / source.benchmark / name).is_file() for name in source.files)
        size = f"{source.bytes:,} bytes" if source.bytes else source.about or "size unknown"
        checksum = source.sha256 or lock.checksum(source.key) or "recorded at the first fetch"
        print(f"{'there  ' if there else 'missing'}  {source.key}{'' if source.needed else ' (optional)'}")
        print(f"         {source.what}; {size}; {source.licence}")
        print(f"         sha256 {checksum}")
        for address in source.addresses or ("no address is known: bring it by hand",):
            print(f"         {address}")
    return 0
