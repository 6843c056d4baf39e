"""Whether a ledger's file is as it was written: its structure, every row's checksum, and what lies in its WAL."""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from longreward.errors import StateError
from longreward.judge.ledger.reader import LedgerFile
from longreward.judge.ledger.store_errors import is_damage
from longreward.judge.ledger.tables import Table, as_json
from longreward.judge.ledger.wal import check_wal


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


def verify(path: Path) -> Verification:
    """Reads all of it; a run may write to it meanwhile. Raises DataError where there is neither file nor WAL,
    StateError where it cannot be read for another reason than damage."""
    found = Verification(path)
    wal = check_wal(path)
    found.damage.extend(wal.damage)
    found.notes.extend(wal.notes)
    if not path.exists() and wal.damage:
        return found
    try:
        with LedgerFile(path) as file:
            found.version = file.version
            found.damage.extend(_structure(file.connection))
            for table in file.tables:
                found.damage.extend(_rows(file, table, found))
            found.notes.extend(_remarks(file))
    except StateError as error:
        if not isinstance(error.__cause__, sqlite3.Error) or not is_damage(error.__cause__):
            raise
        found.damage.append(str(error.__cause__))
    return found


def _structure(connection: sqlite3.Connection) -> Iterator[str]:
    try:
        for (said,) in connection.execute("PRAGMA integrity_check(100)"):
            if said != "ok":
                yield from (f"structure: {line}" for line in said.splitlines() if not line.startswith("***"))
    except sqlite3.Error as error:
        if not is_damage(error):
            raise
        yield f"structure: {error}"


def _rows(file: LedgerFile, table: Table, found: Verification) -> Iterator[str]:
    count = 0
    for row in file.rows(table, salvage=True):
        count += 1
        if not row.is_sound:
            yield f"{table.name} row {row.number}: the checksum does not hold; its key reads {shown(table, row.values)}"
    found.rows[table.name] = count
    for first, last in file.gaps.get(table.name, []):
        yield f"{table.name} row{f's {first} to {last}' if last > first else f' {first}'}: cannot be read"


def _remarks(file: LedgerFile) -> Iterator[str]:
    if file.version == 1:
        yield "version 1, without checksums: only texts and types were looked at; the next run adds them"
    if file.has_aside:
        for why, count in file.select("SELECT why, count(*) FROM aside GROUP BY why"):
            yield f"{count} rows were put aside before ({why}); they are not served"


def shown(table: Table, values: tuple[object, ...]) -> str:
    """A row's key on one line, cut where damage made it long."""
    said = as_json(table.key_of(values))
    return said if len(said) <= 160 else f"{said[:160]}…"
