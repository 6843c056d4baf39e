"""`longreward ledger stats|merge|export|verify`: what the ledgers hold, and whether they are whole."""

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from longreward.judge.ledger.merge import MergeResult
    from longreward.judge.ledger.stats import LedgerStats


def default_ledger() -> Path:
    """Where a run in this folder keeps its answers unless told otherwise."""
    return Path(os.environ.get("LONGREWARD_STATE") or ".longreward") / "ledger.sqlite"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    command = subparsers.add_parser(
        "ledger",
        help="the judge's kept answers: count, merge, export, verify",
        description="The ledger keeps every answer of a judge, and every embedding, so that nothing is paid for twice.",
    )

    def without_action(_: argparse.Namespace) -> int:
        command.print_help()
        return 2

    command.set_defaults(run=without_action)
    actions = command.add_subparsers(title="actions", metavar="")
    where = f"a ledger (default: {default_ledger()})"
    one = actions.add_parser("stats", help="exchanges, outcomes and tokens by judge and template; vectors")
    one.add_argument("files", nargs="*", type=Path, metavar="FILE", help=where)
    one.add_argument("--json", action="store_true", help="as JSON, a line a ledger")
    one.set_defaults(run=_stats)
    one = actions.add_parser(
        "merge",
        help="takes other ledgers' answers into one",
        description="Takes the answers and vectors of other ledgers into one. Of two answers to the same attempt at a "
        "question the first recorded stays. Runs may write to all of them meanwhile; merging again changes nothing.",
    )
    one.add_argument("files", nargs="+", type=Path, metavar="OTHER", help="a ledger to read; it is not changed")
    one.add_argument(
        "--into", type=Path, metavar="FILE", help=f"made where it is missing (default: {default_ledger()})"
    )
    one.add_argument("--salvage", action="store_true", help="take what is sound of a damaged ledger, row by row")
    one.set_defaults(run=_merge)
    one = actions.add_parser("export", help="exchanges as JSON lines, without prompts, which are not kept")
    one.add_argument("files", nargs="*", type=Path, metavar="FILE", help=where)
    one.add_argument("--judge", metavar="NAME", help="only this judge's")
    one.add_argument("--template", metavar="NAME", help="only of this template, as support")
    one.add_argument("--out", type=Path, metavar="FILE", help="where they go (default: the terminal)")
    one.set_defaults(run=_export)
    one = actions.add_parser(
        "verify",
        help="checks the file's structure, every row's checksum and the write-ahead log",
        description="Checks the file's structure, every row's checksum and the write-ahead log. Exits with 1, and "
        "names the rows, where something is damaged.",
    )
    one.add_argument("files", nargs="*", type=Path, metavar="FILE", help=where)
    one.set_defaults(run=_verify)


def _stats(options: argparse.Namespace) -> int:
    import dataclasses
    import json

    from longreward.judge.ledger.stats import collect_stats

    for path in _files(options):
        found = collect_stats(path)
        if options.json:
            print(json.dumps(dataclasses.asdict(found) | {"path": str(path)}, ensure_ascii=False))
        else:
            _show(found)
    return 0


def _show(found: "LedgerStats") -> None:
    aside = f", {found.aside:,} rows put aside" if found.aside else ""
    print(f"{found.path}: {found.bytes / 1e6:,.1f} MB, version {found.version}{aside}")
    if found.exchanges:
        print(
            end=_table(
                _EXCHANGES,
                [
                    (
                        _named(each.judge, each.revision),
                        each.template,
                        each.exchanges,
                        each.readable,
                        each.unreadable,
                        each.refused,
                        each.prompt_tokens,
                        each.cached_tokens,
                        each.completion_tokens,
                        _day(each.first),
                        _day(each.last),
                    )
                    for each in found.exchanges
                ],
            )
        )
    if found.vectors:
        print(
            end=_table(
                _VECTORS,
                [
                    (
                        _named(each.model, each.revision),
                        each.vectors,
                        f"{each.bytes / 1e6:,.1f}",
                        _day(each.first),
                        _day(each.last),
                    )
                    for each in found.vectors
                ],
            )
        )


def _merge(options: argparse.Namespace) -> int:
    from longreward.judge.ledger.merge import merge_ledgers

    into = options.into or default_ledger()
    for merged in merge_ledgers(options.files, into=into, salvage=options.salvage):
        _report(merged, into)
    return 0


def _report(merged: "MergeResult", into: Path) -> None:
    counts = []
    for table, what in (("exchanges", "exchanges"), ("vectors", "vectors")):
        seen = (merged.added[table], merged.present[table], merged.conflicting[table])
        if any(seen):
            differ = f", {seen[2]:,} differ from those there" if seen[2] else ""
            counts.append(f"{seen[0]:,} {what} added, {seen[1]:,} were there{differ}")
    print(f"{merged.source} into {into}: {'; '.join(counts) or 'nothing in it'}")
    for each in merged.conflicts:
        print(f"  {each.table} {each.key}: {each.kept} was first and stays, {each.other} has another answer")
    if (more := sum(merged.conflicting.values()) - len(merged.conflicts)) > 0:
        print(f"  … and {more:,} more that differ")
    for table, count in merged.unreadable.items():
        if count:
            print(f"  {count:,} damaged rows of {table} were left out")
    for table, gaps in merged.gaps.items():
        lost = ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in gaps[:20])
        print(f"  rows of {table} that could not be read: {lost}{', …' if len(gaps) > 20 else ''}")


def _export(options: argparse.Namespace) -> int:
    from longreward.judge.ledger.export import ExchangeExport
    from longreward.utils.jsonl import open_atomic, to_line

    exports = [ExchangeExport(path, judge=options.judge, template=options.template) for path in _files(options)]
    lines = (to_line(row) for export in exports for row in export)
    if options.out is None:
        for line in lines:
            print(end=line)
    else:
        with open_atomic(options.out) as file:
            file.writelines(lines)
    left_out = sum(export.left_out for export in exports)
    if left_out:
        print(f"longreward: {left_out} damaged rows left out; `longreward ledger verify` names them", file=sys.stderr)
    return int(left_out > 0)


def _verify(options: argparse.Namespace) -> int:
    from longreward.judge.ledger.reader import verify_ledger

    damaged = False
    for path in _files(options):
        found = verify_ledger(path)
        rows = ", ".join(f"{count:,} {table}" for table, count in found.rows.items()) or "nothing could be read"
        print(f"{path}: {rows}: {'every one as it was written' if found.is_sound else 'DAMAGED'}")
        for line in (*found.damage, *(f"note: {note}" for note in found.notes)):
            print(f"  {line}")
        if not found.is_sound:
            damaged = True
            print(f"  to save the sound rows: longreward ledger merge {path} --into <new file> --salvage")
    return int(damaged)


def _files(options: argparse.Namespace) -> list[Path]:
    return options.files or [default_ledger()]


def _named(name: str, revision: str) -> str:
    return f"{name} ({revision})" if revision else name


def _day(time_s: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M")


def _table(columns: Sequence[str], rows: Iterable[Sequence[str | int]]) -> str:
    """Words to the left, numbers to the right."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else cell for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    places = [">" if name in _NUMBERS else "<" for name in columns]
    lines = (
        "  ".join(f"{cell:{place}{width}}" for cell, place, width in zip(row, places, widths, strict=True)).rstrip()
        for row in (columns, *cells)
    )
    return "".join(f"  {line}\n" for line in lines)


_NUMBERS = ("exchanges", "readable", "unreadable", "refused", "prompt tokens", "cached", "completion", "vectors", "MB")
_EXCHANGES = ("judge", "template", *_NUMBERS[:7], "first (UTC)", "last (UTC)")
_VECTORS = ("embedding model", "vectors", "MB", "first (UTC)", "last (UTC)")
