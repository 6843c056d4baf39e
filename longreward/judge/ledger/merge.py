"""What several machines' ledgers keep, joined in one; merging again, or in another order, comes to the same.

Of two answers to one attempt at a question the one recorded first stays; of two recorded in the same moment, that of
the lower checksum. A row that gives way in the target is put aside there. The sources are read only.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from longreward.errors import ConfigError, StateError
from longreward.judge.ledger.reader import LedgerReader, Row, format_key, verify_ledger
from longreward.judge.ledger.schema import TABLES, Table, checksum, has_valid_checksum
from longreward.judge.ledger.store import Store, quarantine, store_error, wrong_index_error


@dataclass(frozen=True)
class Conflict:
    """Two ledgers hold different content for one key."""

    table: str
    key: str
    kept: Path
    other: Path


@dataclass
class MergeResult:
    """Rows of one source, by table: `added`, `present` before with the same content, in `conflicts`, or `unreadable`
    (damaged, left out by salvaging; `gaps` could not even be read). `conflicts` lists the first of them."""

    source: Path
    added: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TABLES, 0))
    present: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TABLES, 0))
    conflicting: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TABLES, 0))
    unreadable: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TABLES, 0))
    gaps: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    conflicts: list[Conflict] = field(default_factory=list)


def merge_ledgers(
    sources: Sequence[Path],
    *,
    into: Path,
    salvage: bool = False,
    progress: Callable[[Path, int], None] | None = None,
) -> list[MergeResult]:
    """Takes the sources' answers and vectors into `into`, which is made where it is missing. Runs may write to all of
    them meanwhile.

    `progress` hears each source and how many of its rows were seen. Raises DataError for a missing source, ConfigError
    for one that is the target, and StateError for a damaged one, before anything is merged, unless `salvage` takes its
    sound rows one by one.
    """
    for source in sources:
        if source.exists() and into.exists() and source.samefile(into):
            raise ConfigError(f"{source} is the ledger that is merged into; name it only behind --into")
        LedgerReader(source).close()
        if not salvage:
            _refuse_damage(source)
    with _Target(into) as target:
        return [target.take(source, salvage=salvage, progress=progress) for source in sources]


def _refuse_damage(source: Path) -> None:
    found = verify_ledger(source)
    if not found.is_sound:
        raise StateError(
            f"{source} is damaged in {len(found.damage)} places, the first: {found.damage[0]}. Nothing was merged; "
            "--salvage takes what is sound, row by row"
        )


class _Target(Store):
    def __init__(self, path: Path) -> None:
        super().__init__(path, busy_timeout_s=60.0)

    def take(self, source: Path, *, salvage: bool, progress: Callable[[Path, int], None] | None) -> MergeResult:
        merged, seen = MergeResult(source), 0
        with LedgerReader(source) as file:
            for table in file.tables:
                for rows in _lots(file.rows(table, salvage=salvage)):
                    self._take(table, rows, merged)
                    seen += len(rows)
                    if progress is not None:
                        progress(source, seen)
            merged.gaps = {name: gaps for name, gaps in file.gaps.items() if gaps}
        return merged

    def _take(self, table: Table, rows: list[Row], merged: MergeResult) -> None:
        """One lot in one short transaction, so that a run that writes to the target waits for milliseconds only."""
        try:
            with self._turn, self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                for row in rows:
                    if row.is_sound:
                        self._take_row(table, row.values, merged)
                    else:
                        merged.unreadable[table.name] += 1
        except sqlite3.Error as error:
            raise store_error(self.path, error) from error

    def _take_row(self, table: Table, theirs: tuple[Any, ...], merged: MergeResult) -> None:
        sealed = (*theirs, checksum(theirs))
        if self._connection.execute(table.insert, sealed).rowcount:
            merged.added[table.name] += 1
            return
        condition = " AND ".join(f"{name} = ?" for name in table.key)
        mine = self._connection.execute(f"{table.select} WHERE {condition}", table.key_of(theirs)).fetchone()
        if mine is None:
            raise wrong_index_error(table.name)
        if not has_valid_checksum(mine[1:]):
            self._replace(table, mine, sealed, why="damaged")
            merged.added[table.name] += 1
            return
        first = (theirs[-1], sealed[-1]) < (mine[-2], mine[-1])  # recorded_at, checksum
        if first:
            self._replace(table, mine, sealed, why="later")
        if theirs[:-1] == mine[1:-2]:
            merged.present[table.name] += 1
            return
        merged.conflicting[table.name] += 1
        if len(merged.conflicts) < LISTED:
            assert self.path is not None, "a target is a file"
            kept, other = (merged.source, self.path) if first else (self.path, merged.source)
            merged.conflicts.append(Conflict(table.name, format_key(table, theirs), kept, other))

    def _replace(self, table: Table, mine: tuple[Any, ...], sealed: tuple[Any, ...], *, why: str) -> None:
        quarantine(self._connection, table, mine, why=why)
        self._connection.execute(table.insert, sealed)


def _lots(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while lot := list(islice(rows, 500)):
        yield lot


LISTED = 100
