"""What to do where the ledger's file cannot be used, by what SQLite or the disk says."""

import os
import sqlite3
from pathlib import Path

from longreward.errors import StateError


def fault(path: Path | None, error: Exception) -> StateError:
    """The error as one of ours, with advice; `path` None is the ledger in memory."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else error
    return StateError(f"{path or 'the ledger in memory'}: {said}. {_advice(path, error)}")


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file's structure is broken, rather than out of reach."""
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))


def misled(table: str) -> sqlite3.DatabaseError:
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
