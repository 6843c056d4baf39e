"""Access to the SQLite file of the ledger, shared by threads and processes.

Every row carries a checksum. A row whose checksum does not match is never returned: it is deleted, and its request is
made again.
"""

import functools
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from longreward.errors import StateError
from longreward.judge.ledger.schema import (
    CREATE_STATEMENTS,
    TABLES,
    VERSION,
    Table,
    has_valid_checksum,
    with_checksum,
)

Row = tuple[Any, ...]
log = logging.getLogger(__name__)

CHECKPOINT_PAGES = 8000  # keys are hashes, so each small checkpoint would rewrite pages all over the file
COMMITTED = "Everything committed before is stored, and the next run continues from there."
ADVICE = {
    "SQLITE_FULL": f"The disk is full: free some space and run the stage again. {COMMITTED}",
    "SQLITE_IOERR": f"Reading or writing failed (is the disk full?): fix that and run the stage again. {COMMITTED}",
    "SQLITE_READONLY": "The file or its folder is read-only: give write permission, or choose another state folder "
    "(LONGREWARD_STATE).",
    "SQLITE_CANTOPEN": "The file cannot be opened: is it a folder, or owned by another user?",
    "SQLITE_BUSY": f"Another process holds a lock for too long: stop it and run the stage again. {COMMITTED}",
    "SQLITE_CORRUPT": "The file is damaged. Move it (with its -wal file) to another name and recover its valid rows: "
    "`longreward ledger merge <moved file> --into <this path> --salvage`.",
    "SQLITE_NOTADB": "The file is not a ledger, or is damaged. Move it to another name; the next run creates one.",
}

# Bytes that are not UTF-8 are damage: decode them to surrogates, so that the checksum fails instead of the query.
decode_text = functools.partial(str, encoding="utf-8", errors="surrogateescape")


class Store:
    """The SQLite file at `path`, which is created if it is missing; None keeps the rows in memory.

    Methods raise StateError if the file cannot be opened, read or written. `damaged` counts the rows that this
    instance deleted because of their checksum.
    """

    def __init__(self, path: Path | None, *, busy_timeout_s: float = 60.0) -> None:
        self.path = path
        self.damaged = 0
        # One connection has one transaction at a time, so threads must not interleave their statements.
        self._lock = threading.RLock()
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            # isolation_level=None: the module sqlite3 would otherwise open transactions on its own.
            self._connection = sqlite3.connect(
                path or ":memory:", timeout=busy_timeout_s, isolation_level=None, check_same_thread=False
            )
            self._connection.text_factory = decode_text
            self._initialize(deadline=time.monotonic() + busy_timeout_s)
        except (OSError, sqlite3.Error) as error:
            raise store_error(path, error) from error

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the write lock; commit at the end of the block, or roll back on an exception."""
        try:
            with self._lock, self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
        except sqlite3.Error as error:
            raise store_error(self.path, error) from error

    def _query(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        try:
            with self._lock:
                return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise store_error(self.path, error) from error

    def _insert(self, table: Table, rows: Iterable[Row]) -> None:
        """Insert the rows in one transaction; rows whose key exists already are skipped."""
        with self._transaction() as connection:
            connection.executemany(table.insert, map(with_checksum, rows))

    def _select(self, table: Table, keys: Sequence[Any]) -> list[Row]:
        """Return the valid rows whose first key column is in `keys`, without rowid and checksum."""
        rows = []
        placeholders = ", ".join("?" * len(keys))
        requested = set(keys)
        for rowid, *row in self._query(f"{table.select} WHERE {table.key[0]} IN ({placeholders})", keys):
            if not has_valid_checksum(row):
                self._delete_damaged(table, rowid)
            elif row[0] not in requested:  # a damaged index; other SQLite versions take the key from it instead
                raise store_error(self.path, wrong_index_error(table.name))
            else:
                rows.append(tuple(row[:-1]))
        return rows

    def _delete_damaged(self, table: Table, rowid: int) -> None:
        """Delete the row, unless another process has replaced it since it was read."""
        with self._transaction() as connection:
            row = connection.execute(f"{table.select} WHERE rowid = ?", (rowid,)).fetchone()
            if row is None or has_valid_checksum(row[1:]):
                return
            connection.execute(f"DELETE FROM {table.name} WHERE rowid = ?", (rowid,))
        self.damaged += 1
        log.warning(
            "%s: row %d of %s is damaged and was deleted; its request will be made again. "
            "`longreward ledger verify` checks the other rows",
            self.path or "the ledger in memory",
            rowid,
            table.name,
        )

    def _initialize(self, deadline: float) -> None:
        # SQLite's busy timeout does not apply when two processes switch a new file to WAL mode at the same time.
        while True:
            try:
                return self._create_tables()
            except sqlite3.OperationalError as error:
                if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def _create_tables(self) -> None:
        tables = {name for (name,) in self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        # Read the version after the tables: another process may create both between the two queries.
        check_version(self.path, self._connection.execute("PRAGMA user_version").fetchone()[0], has_tables=bool(tables))
        # In WAL mode with NORMAL, a commit survives a killed process; a power cut may lose the last commits.
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        if not tables >= TABLES.keys():
            script = ";".join(CREATE_STATEMENTS)
            self._connection.executescript(f"BEGIN IMMEDIATE;{script};PRAGMA user_version = {VERSION};COMMIT;")


def check_version(path: Path | None, version: int, *, has_tables: bool) -> None:
    """Raise StateError if the file is the database of another program, or a ledger of another version."""
    if version == 0 and has_tables:
        raise StateError(f"{path}: the file is the database of another program; choose another path for the ledger")
    if version not in (0, VERSION):
        raise StateError(
            f"{path}: the ledger has format version {version}, this program reads version {VERSION}; "
            "use the program that wrote it, or move the file to another name"
        )


def is_corruption(error: sqlite3.Error) -> bool:
    """Return whether the content of the file is damaged, as opposed to locked, unreadable or full."""
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))


def wrong_index_error(table: str) -> sqlite3.DatabaseError:
    """Return the error for an index that points to rows with other keys, which SQLite itself does not notice."""
    error = sqlite3.DatabaseError(f"the index of {table} points to wrong rows")
    error.sqlite_errorname = "SQLITE_CORRUPT_INDEX"
    return error


def store_error(path: Path | None, error: OSError | sqlite3.Error) -> StateError:
    """Return a StateError with the path, SQLite's message and advice."""
    if isinstance(error, OSError):
        message: object = error.strerror or error
        advice = "Its folder cannot be created: choose another one (LONGREWARD_STATE), or give write permission."
    else:
        name = getattr(error, "sqlite_errorname", "")
        kind = next((kind for kind in ADVICE if name.startswith(kind)), None)
        # SQLite reports a read-only folder as a failure to open or write its auxiliary files.
        if kind in ("SQLITE_CANTOPEN", "SQLITE_IOERR") and path and not os.access(path.parent, os.W_OK):
            kind = "SQLITE_READONLY"
        message = error
        advice = ADVICE[kind] if kind else "Everything committed before is stored; run the stage again."
    return StateError(f"{path or 'the ledger in memory'}: {message}. {advice}")
