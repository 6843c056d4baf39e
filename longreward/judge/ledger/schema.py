"""What lies in the ledger's file, version 2, and the checksum that every row carries as its last column.

    exchanges  one row an answer (`longreward.judge.ledger`)
    vectors    one row an embedded text (`longreward.retrieval.embedding_cache`)
    aside      rows that are served no more, as JSON: damaged ones, and those that gave way in a merge

Version 1 had no checksums and no rows aside.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

VERSION = 2


@dataclass(frozen=True)
class Table:
    """One kind of content: its columns with their SQL types, the first of which are the key."""

    name: str
    columns: Mapping[str, str]
    key: tuple[str, ...]

    @property
    def schema(self) -> str:
        columns = ", ".join(f"{name} {kind}" for name, kind in self.columns.items())
        key = ", ".join(self.key)
        return f"CREATE TABLE IF NOT EXISTS {self.name} ({columns}, checksum BLOB NOT NULL, PRIMARY KEY ({key}))"

    @property
    def insert(self) -> str:
        """Of all columns and the checksum; where the key is there already, the first row stays."""
        places = ", ".join("?" * (len(self.columns) + 1))
        return f"INSERT INTO {self.name} VALUES ({places}) ON CONFLICT DO NOTHING"

    @property
    def select(self) -> str:
        """Of the row's number, all columns and the checksum."""
        return f"SELECT rowid, {', '.join(self.columns)}, checksum FROM {self.name}"

    def key_of(self, row: Sequence[Any]) -> tuple[Any, ...]:
        """The key's values, which are the first of a row's."""
        return tuple(row[: len(self.key)])


def with_checksum(row: Sequence[Any]) -> tuple[Any, ...]:
    """The row with its checksum behind it."""
    return (*row, checksum(row))


def has_valid_checksum(row: Sequence[Any]) -> bool:
    """Whether the last of the row's values is the checksum of the others."""
    *values, kept = row
    return bool(kept == checksum(values))


def checksum(values: Sequence[Any]) -> bytes:
    """8 bytes of all values and their types, the same on every machine and in every Python."""
    return hashlib.blake2b(_canonical(list(values)).encode(), digest_size=8).digest()


def row_to_json(values: Sequence[Any]) -> str:
    """The values on one line of ASCII, whatever damage they hold."""
    return _canonical(list(values))


_canonical = json.JSONEncoder(separators=(",", ":"), default=lambda blob: {"blob": blob.hex()}).encode

EXCHANGES = Table(
    "exchanges",
    {
        "question": "TEXT NOT NULL",
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
QUARANTINE = """
CREATE TABLE IF NOT EXISTS aside (
    content TEXT NOT NULL, -- the table that it lay in
    why TEXT NOT NULL,     -- "damaged", or "later": the same question was answered before, elsewhere
    row TEXT NOT NULL,
    put_aside_at REAL NOT NULL
)
"""
SCHEMA = (*(table.schema for table in TABLES.values()), QUARANTINE)
