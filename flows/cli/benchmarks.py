"""`longreward benchmarks fetch|list`: the published files of the benchmarks."""

import argparse
from pathlib import Path

from longreward.flows.cli.options import add_actions

FOLDER = "data/benchmarks"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    command = subparsers.add_parser(
        "benchmarks",
        help="the public benchmarks' files: fetch, list",
        description="The published files of the benchmarks. They are not part of this program: each is downloaded from "
        "its publisher at a pinned commit and verified by its checksum.",
    )
    actions = add_actions(command)
    fetch = actions.add_parser(
        "fetch",
        help="download missing files and verify all files",
        description="Download missing files and verify all files. Exits with 1 if a needed file is not available, and "
        "prints its path and checksum.",
        epilog="example: longreward benchmarks fetch --only mt_bench",
    )
    _add_selection(fetch)
    origin = fetch.add_mutually_exclusive_group()
    origin.add_argument("--mirror", metavar="URL", help="download from <URL>/<benchmark>/<file>")
    origin.add_argument("--from", dest="local", type=Path, metavar="FOLDER", help="copy from here, without network")
    fetch.set_defaults(run=_fetch)
    listing = actions.add_parser("list", help="list all files with source, licence and status, without network")
    _add_selection(listing)
    listing.set_defaults(run=_list)


def _add_selection(action: argparse.ArgumentParser) -> None:
    action.add_argument("--folder", type=Path, default=Path(FOLDER), metavar="FOLDER", help=f"default: {FOLDER}")
    action.add_argument(
        "--only", action="append", default=[], metavar="BENCHMARK", help="for example mt_bench; can be repeated"
    )


def _fetch(options: argparse.Namespace) -> int:
    import sys

    from longreward.benchmarks.downloads import fetch

    results = fetch(
        options.folder,
        only=options.only,
        mirror=options.mirror,
        local=options.local,
        progressbar=sys.stderr.isatty(),
    )
    for result in results:
        if result.status == "failed":
            print(f"{'missing ' if result.is_fatal else 'optional'}  {result.source.key}: {result.reason}")
        else:
            recorded = f" (recorded sha256 {result.recorded_sha256})" if result.recorded_sha256 else ""
            print(f"{result.status:<8}  {result.source.key}{recorded}")
    available = sum(result.status != "failed" for result in results)
    print(f"{available} of {len(results)} files in {options.folder}")
    return int(any(result.is_fatal for result in results))


def _list(options: argparse.Namespace) -> int:
    from longreward.benchmarks.downloads import read_sources, recorded_checksums

    checksums = recorded_checksums(options.folder)
    for source in read_sources(options.only):
        present = all((options.folder / source.benchmark / name).is_file() for name in source.files)
        checksum = source.sha256 or checksums.get(source.key) or "recorded at the first fetch"
        print(f"{'present' if present else 'missing'}  {source.key}{'' if source.needed else ' (optional)'}")
        print(f"         {source.what}; {source.size}; {source.licence}")
        print(f"         sha256 {checksum}")
        for address in source.addresses or ("no known address: copy it by hand",):
            print(f"         {address}")
    return 0
