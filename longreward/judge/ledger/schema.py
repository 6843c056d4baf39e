"""The tables of the ledger, format version 2, and the checksum in the last column of every row.

exchanges   one row per reply of a judge (`longreward.judge.ledger.exchanges`)
vectors     one row per embedded text (`longreward.retrieval.embedding_cache`)
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

VERSION = 2  # stored in `PRAGMA user_version`


@dataclass(frozen=True)
class Table:
    """A table with its columns and their SQL types; the first columns form the primary key."""

    name: str
    columns: Mapping[str, str]
    key: tuple[str, ...]

    @property
    def create(self) -> str:
        columns = ", ".join(f"{name} {kind}" for name, kind in self.columns.items())
        key = ", ".join(self.key)
        return f"CREATE TABLE IF NOT EXISTS {self.name} ({columns}, checksum BLOB NOT NULL, PRIMARY KEY ({key}))"

    @property
    def insert(self) -> str:
        """Insert all columns and the checksum; a row with the same key stays as it is."""
        placeholders = ", ".join("?" * (len(self.columns) + 1))
        return f"INSERT INTO {self.name} VALUES ({placeholders}) ON CONFLICT DO NOTHING"

    @property
    def select(self) -> str:
        """Select the rowid, all columns and the checksum."""
        return f"SELECT rowid, {', '.join(self.columns)}, checksum FROM {self.name}"

    def key_of(self, row: Sequence[Any]) -> tuple[Any, ...]:
        """Return the values of the primary key."""
        return tuple(row[: len(self.key)])


def with_checksum(row: Sequence[Any]) -> tuple[Any, ...]:
    """Append the checksum to the values of a row."""
    return (*row, checksum(row))


def has_valid_checksum(row: Sequence[Any]) -> bool:
    """Check whether the last value is the checksum of the others."""
    *values, stored = row
    return bool(stored == checksum(values))


def checksum(values: Sequence[Any]) -> bytes:
    """Return an 8-byte hash of the values and their types, equal on every machine and Python version."""
    return hashlib.blake2b(row_to_json(values).encode(), digest_size=8).digest()


def row_to_json(values: Sequence[Any]) -> str:
    """Return the values as one line of ASCII; bytes become {"blob": hex}."""
    return _encode(list(values))


_encode = json.JSONEncoder(separators=(",", ":"), default=lambda blob: {"blob": blob.hex()}).encode

EXCHANGES = Table(
    "exchanges",
    {
        "question": "TEXT NOT NULL",  # Exchange.request_id
        "attempt": "INTEGER NOT NULL",
        "temperature": "REAL NOT NULL",
        "template": "TEXT NOT NULL",
        "prompt_hash": "TEXT NOT NULL",
        "judge": "TEXT NOT NULL",
        "revision": "TEXT NOT NULL",
        "text": "TEXT NOT NULL",
        "finish_reason": "TEXT NOT NULL",
        "model": "TEXT NOT NULL",
        "prompt_tokens": "INTEGER NOT NULL",
        "completion_tokens": "INTEGER NOT NULL",
        "cached_tokens": "INTEGER NOT NULL",
        "outcome": "TEXT NOT NULL",
        "reason": "TEXT",
        "recorded_at": "REAL NOT NULL",
    },
    key=("question", "attempt", "temperature"),
)
VECTORS = Table(
    "vectors",
    {
        "key": "BLOB NOT NULL",
        "vector": "BLOB NOT NULL",
        "model": "TEXT NOT NULL",
        "revision": "TEXT NOT NULL",
        "recorded_at": "REAL NOT NULL",
    },
    key=("key",),
)
TABLES = {table.name: table for table in (EXCHANGES, VECTORS)}
CREATE_STATEMENTS = tuple(table.create for table in TABLES.values())
