"""A ledger's file as it lies there: read in order, whatever its version, without a change to it.

Reading goes in short steps, so that a run may write to the same file meanwhile; what it adds is read too.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from longreward.errors import DataError, StateError
from longreward.judge.ledger.migration import is_text
from longreward.judge.ledger.schema import TABLES, Table, has_valid_checksum, row_to_json
from longreward.judge.ledger.store import check_version, decode_text, is_corruption, store_error, wrong_index_error
from longreward.judge.ledger.wal import check_wal


@dataclass(frozen=True)
class Row:
    """The values of all columns of one row; `is_sound`: its checksum holds (version 1: its texts and types do)."""

    number: int
    values: tuple[Any, ...]
    is_sound: bool


class LedgerReader:
    """Raises DataError where there is no file, StateError where it is no ledger or cannot be read.

    `gaps`: the row numbers, from and to, that salvaging could not read, by table.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ends: dict[str, int] = {}
        self.gaps: dict[str, list[tuple[int, int]]] = {}
        if not path.is_file():
            raise DataError(f"{path}: there is no ledger here")
        self.connection = self._opened()
        try:
            self.version: int = self.connection.execute("PRAGMA user_version").fetchone()[0]
            names = {name for (name,) in self.connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            check_version(path, self.version, empty=not names)
        except sqlite3.Error as error:
            raise store_error(path, error) from error
        self.tables = [table for table in TABLES.values() if table.name in names]
        self.has_aside = "aside" in names

    def rows(self, table: Table, *, salvage: bool = False) -> Iterator[Row]:
        """All rows in the order in which they were put; `salvage` goes on behind those that cannot be read."""
        last = 0
        while True:
            try:
                found = self._some(table, f"rowid > {last} ORDER BY rowid LIMIT {AT_ONCE}", above=last)
            except sqlite3.Error as error:
                if not (salvage and is_corruption(error)):
                    raise store_error(self.path, error) from error
                yield from self._one_by_one(table, last + 1)
                last += AT_ONCE
                if last >= self._end(table):
                    return
            else:
                yield from found
                if len(found) < AT_ONCE:
                    return
                last = found[-1].number

    def select(self, statement: str) -> list[tuple[Any, ...]]:
        """The result of a statement of SQL."""
        try:
            return self.connection.execute(statement).fetchall()
        except sqlite3.Error as error:
            raise store_error(self.path, error) from error

    def close(self) -> None:
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _opened(self) -> sqlite3.Connection:
        try:
            return self._connected("mode=ro")
        except sqlite3.Error as error:
            wal = self.path.with_name(f"{self.path.name}-wal")
            if wal.exists() and wal.stat().st_size:
                raise store_error(self.path, error) from error
        try:
            return self._connected("mode=ro&immutable=1")  # a folder that cannot be written, as of a backup
        except sqlite3.Error as error:
            raise store_error(self.path, error) from error

    def _connected(self, how: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self.path.resolve().as_uri()}?{how}", uri=True, isolation_level=None, timeout=60
        )
        connection.text_factory = decode_text
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return connection

    def _one_by_one(self, table: Table, first: int) -> Iterator[Row]:
        gaps = self.gaps.setdefault(table.name, [])
        for number in range(first, min(first + AT_ONCE, self._end(table) + 1)):
            try:
                yield from self._some(table, f"rowid = {number}", above=number - 1)
            except sqlite3.Error as error:
                if not is_corruption(error):
                    raise store_error(self.path, error) from error
                adjacent = gaps and gaps[-1][1] == number - 1
                gaps.append((gaps.pop()[0] if adjacent else number, number))

    def _some(self, table: Table, condition: str, *, above: int) -> list[Row]:
        select = table.select if self.version > 1 else table.select.replace(", checksum FROM", ", NULL FROM")
        found = self.connection.execute(f"{select} WHERE {condition}").fetchall()
        numbers = [above, *(number for number, *_ in found)]
        if any(one >= later for one, later in pairwise(numbers)):
            raise wrong_index_error(table.name)  # of pages that lie in each other's place SQLite says nothing
        return [Row(number, tuple(row[:-1]), self._is_sound(table, row)) for number, *row in found]

    def _is_sound(self, table: Table, row: list[Any]) -> bool:
        if self.version > 1:
            return has_valid_checksum(row)
        kinds = [_TYPES[kind.split()[0]] for kind in table.columns.values()]
        typed = all(isinstance(value, (kind, type(None))) for value, kind in zip(row[:-1], kinds, strict=True))
        return typed and is_text(row)

    def _end(self, table: Table) -> int:
        """The highest row number, or one that is surely not below it."""
        if table.name not in self._ends:
            try:
                (end,) = self.connection.execute(f"SELECT max(rowid) FROM {table.name}").fetchone()
            except sqlite3.Error:
                end = self.path.stat().st_size // 50
            self._ends[table.name] = int(end or 0)
        return self._ends[table.name]


AT_ONCE = 500
_TYPES = {"TEXT": str, "BLOB": bytes, "INTEGER": int, "REAL": float}


# Whether a ledger's file is as it was written: its structure, every row's checksum, and what lies in its WAL.


@dataclass
class Verification:
    """`damage` and `notes` are sentences for people; a file without damage serves what was put into it."""

    path: Path
    version: int = 0
    rows: dict[str, int] = field(default_factory=dict)  # looked at, by table
    damage: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        return not self.damage


def verify_ledger(path: Path) -> Verification:
    """Reads all of it; a run may write to it meanwhile. Raises DataError where there is neither file nor WAL,
    StateError where it cannot be read for another reason than damage."""
    found = Verification(path)
    wal = check_wal(path)
    found.damage.extend(wal.damage)
    found.notes.extend(wal.notes)
    if not path.exists() and wal.damage:
        return found
    try:
        with LedgerReader(path) as file:
            found.version = file.version
            found.damage.extend(_structure(file.connection))
            for table in file.tables:
                found.damage.extend(_rows(file, table, found))
            found.notes.extend(_remarks(file))
    except StateError as error:
        if not isinstance(error.__cause__, sqlite3.Error) or not is_corruption(error.__cause__):
            raise
        found.damage.append(str(error.__cause__))
    return found


def _structure(connection: sqlite3.Connection) -> Iterator[str]:
    try:
        for (said,) in connection.execute("PRAGMA integrity_check(100)"):
            if said != "ok":
                yield from (f"structure: {line}" for line in said.splitlines() if not line.startswith("***"))
    except sqlite3.Error as error:
        if not is_corruption(error):
            raise
        yield f"structure: {error}"


def _rows(file: LedgerReader, table: Table, found: Verification) -> Iterator[str]:
    count = 0
    for row in file.rows(table, salvage=True):
        count += 1
        if not row.is_sound:
            key = format_key(table, row.values)
            yield f"{table.name} row {row.number}: the checksum does not hold; its key reads {key}"
    found.rows[table.name] = count
    for first, last in file.gaps.get(table.name, []):
        yield f"{table.name} row{f's {first} to {last}' if last > first else f' {first}'}: cannot be read"


def _remarks(file: LedgerReader) -> Iterator[str]:
    if file.version == 1:
        yield "version 1, without checksums: only texts and types were looked at; the next run adds them"
    if file.has_aside:
        for why, count in file.select("SELECT why, count(*) FROM aside GROUP BY why"):
            yield f"{count} rows were put aside before ({why}); they are not served"


def format_key(table: Table, values: tuple[object, ...]) -> str:
    """A row's key on one line, cut where damage made it long."""
    said = row_to_json(table.key_of(values))
    return said if len(said) <= 160 else f"{said[:160]}…"
