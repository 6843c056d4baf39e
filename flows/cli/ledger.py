"""`longreward ledger stats|merge|export|verify`: inspect, merge and check ledgers."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longreward.flows.cli.options import add_actions, default_ledger

if TYPE_CHECKING:
    from longreward.judge.ledger.stats import StatsRow

MAX_GAPS = 20  # printed by `merge --salvage`


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    command = subparsers.add_parser(
        "ledger",
        help="the judge's stored replies: count, merge, export, verify",
        description="The ledger stores every reply of a judge and every embedding, so that nothing is paid for twice.",
    )
    actions = add_actions(command)
    ledger = default_ledger()
    ledger_option: Any = {"type": Path, "metavar": "FILE", "default": [ledger], "help": f"a ledger (default: {ledger})"}

    action = actions.add_parser("stats", help="exchanges, outcomes and tokens by judge and template; vectors")
    action.add_argument("files", nargs="*", **ledger_option)
    action.add_argument("--json", action="store_true", help="print JSON, one line per ledger")
    action.set_defaults(run=_stats)

    action = actions.add_parser(
        "merge",
        help="copy the replies of other ledgers into one",
        description="Copies the replies and vectors of other ledgers into one. If two ledgers have different replies "
        "to the same attempt at a request, the first recorded stays. Runs may write to all files meanwhile; repeating "
        "a merge changes nothing.",
    )
    action.add_argument("files", nargs="+", type=Path, metavar="OTHER", help="a ledger to read; it is not changed")
    action.add_argument(
        "--into", type=Path, metavar="FILE", default=ledger, help=f"created if it is missing (default: {ledger})"
    )
    action.add_argument("--salvage", action="store_true", help="copy the valid rows of damaged or truncated ledgers")
    action.set_defaults(run=_merge)

    action = actions.add_parser("export", help="exchanges as JSON lines; the ledger stores no prompts")
    action.add_argument("files", nargs="*", **ledger_option)
    action.add_argument("--judge", metavar="NAME", help="only exchanges of this judge")
    action.add_argument("--template", metavar="NAME", help="only exchanges of this template, such as support")
    action.add_argument("--out", type=Path, metavar="FILE", help="output file (default: the terminal)")
    action.set_defaults(run=_export)

    action = actions.add_parser(
        "verify",
        help="check the structure of the file and the checksum of every row",
        description="Checks the structure of the file and the checksum of every row. Exits with 1 if something is "
        "damaged, and lists the rows.",
    )
    action.add_argument("files", nargs="*", **ledger_option)
    action.set_defaults(run=_verify)


def _stats(options: argparse.Namespace) -> int:
    import dataclasses
    import json

    from longreward.judge.ledger.stats import collect_stats

    for path in options.files:
        stats = collect_stats(path)
        if options.json:
            print(json.dumps(dataclasses.asdict(stats) | {"path": str(path)}, ensure_ascii=False))
        else:
            print(f"{stats.path}: {stats.bytes / 1e6:,.1f} MB, version {stats.version}")
            for rows in (stats.exchanges, stats.vectors):
                if rows:
                    _print_table(rows)
    return 0


def _merge(options: argparse.Namespace) -> int:
    from longreward.judge.ledger.merge import merge_ledgers

    for result in merge_ledgers(options.files, into=options.into, salvage=options.salvage):
        counts = []
        for table in result.added:
            added, present, conflicting = result.added[table], result.present[table], result.conflicting[table]
            if added or present or conflicting:
                conflicts = f", {conflicting:,} conflicting" if conflicting else ""
                counts.append(f"{added:,} {table} added, {present:,} already present{conflicts}")
        print(f"{result.source} into {options.into}: {'; '.join(counts) or 'no rows'}")
        for table, count in result.damaged.items():
            if count:
                print(f"  {count:,} damaged rows of {table} were left out")
        for table, gaps in result.gaps.items():
            more = ", …" if len(gaps) > MAX_GAPS else ""
            print(f"  rows of {table} that cannot be read: {', '.join(gaps[:MAX_GAPS])}{more}")
    return 0


def _export(options: argparse.Namespace) -> int:
    from longreward.judge.ledger.export import ExchangeExport
    from longreward.utils.jsonl import open_atomic, to_line

    exports = [ExchangeExport(path, judge=options.judge, template=options.template) for path in options.files]
    lines = (to_line(row) for export in exports for row in export)
    if options.out is None:
        for line in lines:
            print(end=line)
    else:
        with open_atomic(options.out) as file:
            file.writelines(lines)
    damaged = sum(export.damaged for export in exports)
    if damaged:
        print(f"longreward: {damaged} damaged rows left out; `longreward ledger verify` lists them", file=sys.stderr)
    return int(damaged > 0)


def _verify(options: argparse.Namespace) -> int:
    from longreward.judge.ledger.reader import verify_ledger

    exit_code = 0
    for path in options.files:
        result = verify_ledger(path)
        rows = ", ".join(f"{count:,} {table}" for table, count in result.rows.items()) or "no rows can be read"
        print(f"{path}: {rows}: {'valid' if result.is_valid else 'DAMAGED'}")
        for line in result.damage:
            print(f"  {line}")
        if not result.is_valid:
            exit_code = 1
            print(f"  to recover the valid rows: longreward ledger merge {path} --into <new file> --salvage")
    return exit_code


def _print_table(rows: "Sequence[StatsRow]") -> None:
    """Print a table; `first` and `last` are times in UTC."""
    from datetime import UTC, datetime

    from longreward.utils.markdown import markdown_table
    from longreward.utils.markdown_text import print_markdown

    def format_cell(name: str, value: str | int | float) -> str:
        if name in ("first", "last"):
            return datetime.fromtimestamp(float(value), UTC).strftime("%Y-%m-%d %H:%M")
        return value if isinstance(value, str) else f"{value:,}"

    cells = [[format_cell(name, value) for name, value in row.items()] for row in rows]
    print_markdown("\n".join(["", *markdown_table(list(rows[0]), cells), ""]))
