"""Version 1 of the ledger's file, which had no checksums, becomes version 2 where it lies.

All in one transaction: a process that is killed in the midst of it leaves version 1, and others that open the file
wait. A program that reads version 1 only says so from then on. A row's text that is not UTF-8 any more gets no
checksum: it counts as damaged.
"""

import sqlite3
from collections.abc import Sequence

from longreward.judge.ledger.schema import SCHEMA, TABLES, VERSION, Table, checksum


def migrate(connection: sqlite3.Connection) -> None:
    """Does nothing where another process has done it meanwhile."""
    with connection:
        connection.execute("BEGIN IMMEDIATE")
        if connection.execute("PRAGMA user_version").fetchone() != (1,):
            return
        there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for table in TABLES.values():
            if table.name in there:
                _seal(connection, table)
        for statement in SCHEMA:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")


def _seal(connection: sqlite3.Connection, table: Table) -> None:
    connection.execute(f"ALTER TABLE {table.name} ADD COLUMN checksum BLOB NOT NULL DEFAULT x''")
    last = -1
    while rows := connection.execute(f"{table.select} WHERE rowid > ? ORDER BY rowid LIMIT 1000", (last,)).fetchall():
        sums = [(checksum(values), rowid) for rowid, *values, _ in rows if is_text(values)]
        connection.executemany(f"UPDATE {table.name} SET checksum = ? WHERE rowid = ?", sums)
        last = rows[-1][0]


def is_text(values: Sequence[object]) -> bool:
    """Whether all texts among them were UTF-8; in others, `store.AS_TEXT` left surrogates for the offending bytes."""
    try:
        for value in values:
            if isinstance(value, str):
                value.encode()
    except UnicodeEncodeError:
        return False
    return True
