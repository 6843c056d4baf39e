"""Read-only access to whole ledger files: iteration over all rows, verification, and reading of damaged files.

Rows are read in short steps, so that other processes can write meanwhile; rows that they add are read too.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from longreward.errors import DataError, StateError
from longreward.judge.ledger.schema import TABLES, VERSION, Table, has_valid_checksum, row_to_json
from longreward.judge.ledger.store import check_version, decode_text, is_corruption, store_error, wrong_index_error

ROWS_PER_QUERY = 500
MAX_MISSING_ROWS = 50_000  # a lost interior page of the b-tree hides a few thousand rows; 50,000 probes take 2 s


@dataclass(frozen=True)
class LedgerRow:
    """The values of all columns of one row, without the checksum; `is_valid` says whether that matches."""

    rowid: int
    values: tuple[Any, ...]
    is_valid: bool


class LedgerReader:
    """A ledger file opened for reading.

    Args:
        path: the file.
        salvage: open truncated and damaged files too, and let `rows` skip the pages that cannot be read.

    Raises:
        DataError: there is no such file.
        StateError: the file is not a ledger, or cannot be read.
    """

    def __init__(self, path: Path, *, salvage: bool = False) -> None:
        if not path.is_file():
            raise DataError(f"{path}: there is no ledger here")
        self.path = path
        self.salvage = salvage
        self.gaps: dict[str, list[str]] = {}
        """Ranges of rows that `rows` skipped because they could not be read, by table."""
        try:
            self._connection = self._open()
            tables = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            self.version: int = self._connection.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.Error as error:
            raise store_error(path, error) from error
        check_version(path, self.version, has_tables=bool(tables))

    def rows(self, table: Table) -> Iterator[LedgerRow]:
        """Yield all rows of a table in the order of insertion."""
        if self.version != VERSION:  # an empty file: its process ended before the tables were created
            return
        if self.salvage:
            yield from self._readable_rows(table)
            return
        # A single SELECT would hold a read transaction, which keeps SQLite from emptying the write-ahead log.
        last = 0
        while True:
            _, batch = self._query(f"{table.select} WHERE rowid > {last} ORDER BY rowid LIMIT {ROWS_PER_QUERY}")
            # SQLite does not notice two pages that were swapped, apart from their order.
            if any(first >= second for first, second in pairwise([last, *(rowid for rowid, *_ in batch)])):
                raise store_error(self.path, wrong_index_error(table.name))
            yield from map(_ledger_row, batch)
            if len(batch) < ROWS_PER_QUERY:
                return
            last = batch[-1][0]

    def structure_errors(self) -> list[str]:
        """Return what SQLite's integrity check finds, at most 100 lines."""
        try:
            results = self._connection.execute("PRAGMA integrity_check(100)").fetchall()
        except sqlite3.Error as error:
            if not is_corruption(error):
                raise store_error(self.path, error) from error
            return [str(error)]  # a file may be damaged too much even for the check
        lines = [line for (text,) in results for line in text.split("\n")]
        return [line for line in lines if line != "ok" and not line.startswith("***")]

    def select(self, statement: str) -> list[dict[str, Any]]:
        """Return the rows of an SQL query by column name; none if the file has no tables yet."""
        if self.version != VERSION:
            return []
        names, rows = self._query(statement)
        return [dict(zip(names, row, strict=True)) for row in rows]

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _query(self, statement: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Return the names of the columns and the rows."""
        try:
            cursor = self._connection.execute(statement)
            return [column[0] for column in cursor.description], cursor.fetchall()
        except sqlite3.Error as error:
            raise store_error(self.path, error) from error

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect("mode=ro")
        except sqlite3.Error:
            # Reading a WAL database creates files beside it. In a read-only folder, as of a backup, `immutable` avoids
            # that, but it ignores the log.
            wal = self.path.with_name(f"{self.path.name}-wal")
            if wal.exists() and wal.stat().st_size:
                raise
        return self._connect("mode=ro&immutable=1")

    def _connect(self, options: str) -> sqlite3.Connection:
        uri = f"{self.path.resolve().as_uri()}?{options}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=60)
        connection.text_factory = decode_text
        if self.salvage:
            # With this pragma SQLite corrects the page count of a truncated file instead of refusing to open it.
            connection.execute("PRAGMA writable_schema = ON")
        else:
            connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return connection

    def _readable_rows(self, table: Table) -> Iterator[LedgerRow]:
        """Yield every row that SQLite can read; after an error, continue behind the unreadable page."""
        # Probing rowids one by one finds every readable page: a damaged one hides an unknown number of rows.
        gaps = self.gaps.setdefault(table.name, [])
        rowid = gap_start = 0
        while rowid - gap_start < MAX_MISSING_ROWS:
            try:
                for row in self._connection.execute(f"{table.select} WHERE rowid >= {rowid} ORDER BY rowid"):
                    if row[0] < rowid:
                        continue  # a damaged pointer led back to an earlier page
                    if rowid > gap_start:
                        gaps.append(f"{gap_start} to {row[0] - 1}")
                    rowid = gap_start = row[0] + 1
                    yield _ledger_row(row)
            except sqlite3.Error as error:
                if not is_corruption(error):
                    raise store_error(self.path, error) from error
                rowid += 1
            else:
                break
        if rowid > gap_start:
            gaps.append(f"{gap_start} and later")


def _ledger_row(row: tuple[Any, ...]) -> LedgerRow:
    rowid, *values = row
    return LedgerRow(rowid, tuple(values[:-1]), has_valid_checksum(values))


@dataclass
class Verification:
    """The result of `verify_ledger`; `damage` holds messages for people."""

    path: Path
    rows: dict[str, int] = field(default_factory=dict)  # checked, by table
    damage: list[str] = field(default_factory=list)

    @property
    def is_valid(self) -> bool:
        return not self.damage


def verify_ledger(path: Path) -> Verification:
    """Check the structure of the file and the checksum of every row; other processes may write to it meanwhile.

    Raises:
        DataError: there is no such file.
        StateError: the file cannot be read for another reason than damage.
    """
    result = Verification(path)
    try:
        with LedgerReader(path, salvage=True) as reader:
            result.damage += [f"structure: {line}" for line in reader.structure_errors()]
            for table in TABLES.values():
                result.rows[table.name] = 0
                for ledger_row in reader.rows(table):
                    result.rows[table.name] += 1
                    if not ledger_row.is_valid:
                        key = format_key(table, ledger_row.values)
                        result.damage.append(
                            f"{table.name} row {ledger_row.rowid}: wrong checksum; its key reads {key}"
                        )
                result.damage += [f"{table.name} rows {gap} cannot be read" for gap in reader.gaps.get(table.name, [])]
    except StateError as error:
        if not isinstance(error.__cause__, sqlite3.Error) or not is_corruption(error.__cause__):
            raise
        result.damage.append(str(error.__cause__))
    return result


def format_key(table: Table, values: tuple[object, ...]) -> str:
    """Return the key of a row on one line, shortened if damage made it long."""
    text = row_to_json(table.key_of(values))
    return text if len(text) <= 160 else f"{text[:160]}…"
