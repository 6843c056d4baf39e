"""Merge the ledgers of several machines into one; repeating a merge, or another order, gives the same result.

If two ledgers have different rows for one key, the row that was recorded first stays; if both were recorded at the same
time, the row with the lower checksum. Sources are only read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from longreward.errors import ConfigError, StateError
from longreward.judge.ledger.reader import LedgerReader, verify_ledger
from longreward.judge.ledger.schema import TABLES, Table, checksum, has_valid_checksum
from longreward.judge.ledger.store import Store, wrong_index_error

ROWS_PER_TRANSACTION = 500  # processes that write to the target wait for a few milliseconds only


def _counts() -> dict[str, int]:
    return dict.fromkeys(TABLES, 0)


@dataclass
class MergeResult:
    """The number of rows of one source, by table: each row is added, present, conflicting or damaged."""

    source: Path
    added: dict[str, int] = field(default_factory=_counts)
    present: dict[str, int] = field(default_factory=_counts)
    """Rows that the target has with the same content."""
    conflicting: dict[str, int] = field(default_factory=_counts)
    damaged: dict[str, int] = field(default_factory=_counts)
    """Rows with a wrong checksum, which were left out."""
    gaps: dict[str, list[str]] = field(default_factory=dict)
    """Ranges of rows that could not be read at all."""


def merge_ledgers(
    sources: Sequence[Path],
    *,
    into: Path,
    salvage: bool = False,
    on_progress: Callable[[Path, int], None] | None = None,
) -> list[MergeResult]:
    """Copy the exchanges and vectors of `sources` to `into`, which is created if it is missing.

    Other processes may write to all files meanwhile.

    Args:
        sources: the ledgers to read.
        into: the ledger to write.
        salvage: copy the valid rows of damaged sources.
        on_progress: called with each source and the number of its rows processed so far.

    Raises:
        ConfigError: a source is the target.
        DataError: a source does not exist.
        StateError: a source is damaged and `salvage` is False; nothing was merged.
    """
    for source in sources:
        if source.exists() and into.exists() and source.samefile(into):
            raise ConfigError(f"{source} is the target of the merge; name it only with --into")
        if salvage:
            LedgerReader(source, salvage=True).close()
        elif damage := verify_ledger(source).damage:
            raise StateError(
                f"{source} is damaged ({len(damage)} errors, the first: {damage[0]}). Nothing was merged; "
                "--salvage copies the valid rows"
            )
    with _MergeTarget(into) as target:
        return [target.merge(source, salvage=salvage, on_progress=on_progress) for source in sources]


class _MergeTarget(Store):
    def merge(self, source: Path, *, salvage: bool, on_progress: Callable[[Path, int], None] | None) -> MergeResult:
        result, processed = MergeResult(source), 0
        with LedgerReader(source, salvage=salvage) as reader:
            for table in TABLES.values():
                all_rows = reader.rows(table)
                while rows := list(islice(all_rows, ROWS_PER_TRANSACTION)):
                    with self._transaction():
                        for row in rows:
                            if row.is_valid:
                                self._merge_row(table, row.values, result)
                            else:
                                result.damaged[table.name] += 1
                    processed += len(rows)
                    if on_progress is not None:
                        on_progress(source, processed)
            result.gaps = {table: gaps for table, gaps in reader.gaps.items() if gaps}
        return result

    def _merge_row(self, table: Table, values: tuple[Any, ...], result: MergeResult) -> None:
        row = (*values, checksum(values))
        if self._connection.execute(table.insert, row).rowcount:
            result.added[table.name] += 1
            return
        condition = " AND ".join(f"{name} = ?" for name in table.key)
        # The key exists: compare the stored row.
        selected = self._connection.execute(f"{table.select} WHERE {condition}", table.key_of(values)).fetchone()
        if selected is None:
            raise wrong_index_error(table.name)
        existing = selected[1:]
        # A damaged row of the target never wins, whenever it was recorded.
        if not has_valid_checksum(existing):
            self._replace(table, selected[0], row)
            result.added[table.name] += 1
            return
        if row[-2:] < existing[-2:]:  # (recorded_at, checksum)
            self._replace(table, selected[0], row)
        # Two copies of one reply may differ in their time only: no conflict, but the earlier time stays.
        if values[:-1] == existing[:-2]:
            result.present[table.name] += 1
            return
        result.conflicting[table.name] += 1

    def _replace(self, table: Table, rowid: int, row: tuple[Any, ...]) -> None:
        self._connection.execute(f"DELETE FROM {table.name} WHERE rowid = ?", (rowid,))
        self._connection.execute(table.insert, row)
