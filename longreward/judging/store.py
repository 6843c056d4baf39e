"""The SQLite file that answers and vectors are kept in, and what to do where it cannot be used.

It is in WAL mode: several processes may write at once, and what was committed survives a killed process. Each kind of
content has a table of its own, made by the first that needs it.
"""

import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from longreward.errors import StateError

VERSION = 1


class Store:
    """The file at `path`, made where it is missing, with the tables of `schema`; None keeps it in memory.

    Raises StateError where the file cannot be opened, read or written. Threads may share it.
    """

    def __init__(self, path: Path | None, schema: str, *, busy_timeout_s: float) -> None:
        self.path = path
        self._turn = threading.RLock()  # a transaction is the connection's: nobody reads in the midst of another's
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path or ":memory:", timeout=busy_timeout_s, isolation_level=None, check_same_thread=False
            )
            self._prepare(schema, until=time.monotonic() + busy_timeout_s)
        except (OSError, sqlite3.Error) as error:
            raise self._fault(error) from error

    def _rows(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            with self._turn:
                return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self._fault(error) from error

    def _put_all(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """All rows or none."""
        try:
            with self._turn, self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(statement, rows)
        except sqlite3.Error as error:
            raise self._fault(error) from error

    def close(self) -> None:
        with self._turn:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(self, schema: str, until: float) -> None:
        """Sets the file up; two processes that do so at once wait for each other."""
        while True:
            try:
                return self._set_up(schema)
            except sqlite3.OperationalError as error:  # SQLite does not wait where both would go over to WAL
                busy = error.sqlite_errorname.startswith("SQLITE_BUSY")
                if not busy or time.monotonic() > until:
                    raise
                time.sleep(0.02)

    def _set_up(self, schema: str) -> None:
        # WAL with NORMAL: a commit survives a killed process, and only a power cut may take the last ones.
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute("PRAGMA wal_autocheckpoint=8000")  # pages; writing hashes back in small lots is slow
        tables = {name for (name,) in self._connection.execute("SELECT name FROM sqlite_master")}
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]  # after the tables: others make both
        if tables and version == 0:
            raise StateError(
                f"{self.path}: the file is another program's database; choose another place for the ledger"
            )
        if version not in (0, VERSION):
            raise StateError(
                f"{self.path}: the ledger has version {version}, this program reads version {VERSION}; "
                "use the program that wrote it, or move the file aside"
            )
        if not set(_TABLE.findall(schema)) <= tables:
            self._connection.executescript(f"BEGIN IMMEDIATE;{schema}PRAGMA user_version = {VERSION};COMMIT;")

    def _fault(self, error: Exception) -> StateError:
        said = error.strerror if isinstance(error, OSError) and error.strerror else error
        return StateError(f"{self.path or 'the ledger in memory'}: {said}. {self._advice(error)}")

    def _advice(self, error: Exception) -> str:
        if not isinstance(error, sqlite3.Error):
            return "Its folder cannot be made: choose another one (LONGREWARD_STATE), or give write permission."
        name = getattr(error, "sqlite_errorname", "")
        kind = next((kind for kind in _ADVICE if name.startswith(kind)), None)
        if kind in ("SQLITE_CANTOPEN", "SQLITE_IOERR") and self.path and not os.access(self.path.parent, os.W_OK):
            kind = "SQLITE_READONLY"
        return _ADVICE[kind] if kind else "Everything committed before is kept; run the stage again."


_TABLE = re.compile(r"CREATE TABLE IF NOT EXISTS (\w+)")
_KEPT = "Everything committed before is kept, and the next run goes on from there."
_ADVICE = {
    "SQLITE_FULL": f"The disk is full: free some space and run the stage again. {_KEPT}",
    "SQLITE_IOERR": f"The disk refuses to read or write (is it full?): mend that and run the stage again. {_KEPT}",
    "SQLITE_READONLY": "The file or its folder cannot be written: give write permission, or choose another state "
    "folder (LONGREWARD_STATE).",
    "SQLITE_CANTOPEN": "The file cannot be opened: is it a folder, or not yours?",
    "SQLITE_BUSY": f"Another process has kept it locked for too long: stop that one and run the stage again. {_KEPT}",
    "SQLITE_CORRUPT": "The file is damaged. Move it aside; `sqlite3 <file> .recover` may save its answers.",
    "SQLITE_NOTADB": "The file is not a ledger, or is damaged. Move it aside; a new one is made by the next run.",
}
