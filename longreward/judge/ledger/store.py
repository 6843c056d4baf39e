"""The SQLite file that answers and vectors are kept in: written by several processes at once, read with checksums.

It is in WAL mode: what was committed survives a killed process. A row whose checksum does not hold is never served: it
is put aside, and what it held is asked for again.
"""

import functools
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from longreward.errors import StateError
from longreward.judge.ledger.file_systems import network_file_system
from longreward.judge.ledger.migration import migrate
from longreward.judge.ledger.schema import SCHEMA, VERSION, Table, has_valid_checksum, row_to_json, with_checksum

Row = tuple[Any, ...]
log = logging.getLogger(__name__)


class Store:
    """The file at `path`, made where it is missing; None keeps it in memory. Threads may share it.

    Raises StateError where the file cannot be opened, read or written. `damaged` counts the rows that it put aside.
    """

    def __init__(self, path: Path | None, *, busy_timeout_s: float) -> None:
        self.path = path
        self.damaged = 0
        self._turn = threading.RLock()  # a transaction is the connection's: nobody reads in the midst of another's
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                _warn_of_network(path)
            self._connection = sqlite3.connect(
                path or ":memory:", timeout=busy_timeout_s, isolation_level=None, check_same_thread=False
            )
            self._connection.text_factory = decode_text
            self._prepare(until=time.monotonic() + busy_timeout_s)
        except (OSError, sqlite3.Error) as error:
            raise store_error(path, error) from error

    def close(self) -> None:
        with self._turn:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _insert(self, table: Table, rows: Iterable[Row]) -> None:
        """Keeps all rows, in one commit, before it returns, or none; where a key is there, the first row stays."""
        try:
            with self._turn, self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(table.insert, map(with_checksum, rows))
        except sqlite3.Error as error:
            raise store_error(self.path, error) from error

    def _find(self, table: Table, wanted: Sequence[Any]) -> list[Row]:
        """The sound rows whose key begins with one of those wanted, each the values of all columns."""
        places = ", ".join("?" * len(wanted))
        asked, found = set(wanted), []
        for rowid, *row in self._rows(f"{table.select} WHERE {table.key[0]} IN ({places})", wanted):
            if not has_valid_checksum(row):
                self._put_aside(table, rowid)
            elif table.key_of(row)[0] not in asked:
                raise store_error(self.path, wrong_index_error(table.name))
            else:
                found.append(tuple(row[:-1]))
        return found

    def _rows(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        try:
            with self._turn:
                return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise store_error(self.path, error) from error

    def _put_aside(self, table: Table, rowid: int) -> None:
        """Makes room for a sound row, unless another process has done so meanwhile."""
        try:
            with self._turn, self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                row = self._connection.execute(f"{table.select} WHERE rowid = ?", (rowid,)).fetchone()
                if row is None or has_valid_checksum(row[1:]):
                    return
                quarantine(self._connection, table, row, why="damaged")
        except sqlite3.Error as error:
            raise store_error(self.path, error) from error
        self.damaged += 1
        log.warning(
            "%s: row %d of %s is damaged; it was put aside, and what it held is asked for again. "
            "`longreward ledger verify` looks at the others",
            self.path or "the ledger in memory",
            rowid,
            table.name,
        )

    def _prepare(self, until: float) -> None:
        """Sets the file up; two processes that do so at once wait for each other."""
        while True:
            try:
                return self._set_up()
            except sqlite3.OperationalError as error:  # SQLite does not wait where both would go over to WAL
                busy = error.sqlite_errorname.startswith("SQLITE_BUSY")
                if not busy or time.monotonic() > until:
                    raise
                time.sleep(0.02)

    def _set_up(self) -> None:
        tables = {name for (name,) in self._connection.execute("SELECT name FROM sqlite_master")}
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]  # after the tables: others make both
        check_version(self.path, version, empty=not tables)
        # WAL with NORMAL: a commit survives a killed process, and only a power cut may take the last ones.
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute("PRAGMA wal_autocheckpoint=8000")  # pages; writing hashes back in small lots is slow
        if version == 1:
            migrate(self._connection)
        elif not tables:
            script = ";".join(SCHEMA)
            self._connection.executescript(f"BEGIN IMMEDIATE;{script};PRAGMA user_version = {VERSION};COMMIT;")


def quarantine(connection: sqlite3.Connection, table: Table, row: Row, *, why: str) -> None:
    """Moves a row, its number first and its checksum last, within the transaction under way."""
    rowid, *values = row
    connection.execute("INSERT INTO aside VALUES (?, ?, ?, ?)", (table.name, why, row_to_json(values), time.time()))
    connection.execute(f"DELETE FROM {table.name} WHERE rowid = ?", (rowid,))


def check_version(path: Path | None, version: int, *, empty: bool) -> None:
    """Raises StateError for another program's file, and for a version that is not known here."""
    if version == 0 and not empty:
        raise StateError(f"{path}: the file is another program's database; choose another place for the ledger")
    if version not in (0, 1, VERSION):
        raise StateError(
            f"{path}: the ledger has version {version}, this program reads versions up to {VERSION}; "
            "use the program that wrote it, or move the file aside"
        )


def _warn_of_network(path: Path) -> None:
    kind = network_file_system(path)
    if kind is not None and path not in _warned:
        _warned.add(path)
        log.warning(
            "%s lies on a network file system (%s): processes of two machines must not write to it at once, and locks "
            "may fail. Give each machine a state folder on a disk of its own (LONGREWARD_STATE), and join what they "
            "kept with `longreward ledger merge`",
            path,
            kind,
        )


decode_text = functools.partial(str, encoding="utf-8", errors="surrogateescape")  # damage is seen, not raised
_warned: set[Path] = set()


# What to do where the ledger's file cannot be used, by what SQLite or the disk says.


def store_error(path: Path | None, error: Exception) -> StateError:
    """The error as one of ours, with advice; `path` None is the ledger in memory."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else error
    return StateError(f"{path or 'the ledger in memory'}: {said}. {_advice(path, error)}")


def is_corruption(error: sqlite3.Error) -> bool:
    """Whether the file's structure is broken, rather than out of reach."""
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))


def wrong_index_error(table: str) -> sqlite3.DatabaseError:
    """The error of an index that leads to rows of other keys, which SQLite does not notice."""
    error = sqlite3.DatabaseError(f"the index of {table} leads to wrong rows")
    error.sqlite_errorname = "SQLITE_CORRUPT_INDEX"
    return error


def _advice(path: Path | None, error: Exception) -> str:
    if not isinstance(error, sqlite3.Error):
        return "Its folder cannot be made: choose another one (LONGREWARD_STATE), or give write permission."
    name = getattr(error, "sqlite_errorname", "")
    kind = next((kind for kind in _ADVICE if name.startswith(kind)), None)
    if kind in ("SQLITE_CANTOPEN", "SQLITE_IOERR") and path and not os.access(path.parent, os.W_OK):
        kind = "SQLITE_READONLY"
    return _ADVICE[kind] if kind else "Everything committed before is kept; run the stage again."


_KEPT = "Everything committed before is kept, and the next run goes on from there."
_ADVICE = {
    "SQLITE_FULL": f"The disk is full: free some space and run the stage again. {_KEPT}",
    "SQLITE_IOERR": f"The disk refuses to read or write (is it full?): mend that and run the stage again. {_KEPT}",
    "SQLITE_READONLY": "The file or its folder cannot be written: give write permission, or choose another state "
    "folder (LONGREWARD_STATE).",
    "SQLITE_CANTOPEN": "The file cannot be opened: is it a folder, or not yours?",
    "SQLITE_BUSY": f"Another process has kept it locked for too long: stop that one and run the stage again. {_KEPT}",
    "SQLITE_CORRUPT": "The file is damaged. Move it aside (with its -wal), and save its sound answers into a new one: "
    "`longreward ledger merge <moved file> --into <this path> --salvage`.",
    "SQLITE_NOTADB": "The file is not a ledger, or is damaged. Move it aside; a new one is made by the next run.",
}
