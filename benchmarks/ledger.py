"""Throughput of the ledger against plain sqlite3 with the same columns and settings.

    python benchmarks/ledger.py [--rows 10000] [--rounds 5] [--folder FOLDER]

The sqlite3 alternative inserts ready-made tuples without a checksum, committed one by one or 64 at a time, and selects
the row of a key as a tuple. Both alternate in each round on files in one folder; rates are medians over the rounds.
"""

import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from common import argument_parser

from longreward.chat_model import ChatReply, TokenUsage
from longreward.judge.ledger import Exchange, Ledger
from longreward.judge.ledger.reader import verify_ledger
from longreward.judge.ledger.schema import EXCHANGES

REPLY = "The statement is supported by the third snippet, which names the year. " * 10 + "[[Fully supported]]"
BATCH = 64
BATCHED_WRITE = f"put_many, {BATCH} rows"
PLACEHOLDERS = ", ".join("?" * len(EXCHANGES.columns))
INSERT = f"INSERT INTO exchanges VALUES ({PLACEHOLDERS}) ON CONFLICT DO NOTHING"
SELECT = f"SELECT * FROM exchanges WHERE {EXCHANGES.key[0]} = ?"
Row = tuple[object, ...]


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="a folder on the disk to measure (default: that of tempfile)")
    options = parser.parse_args()
    ledger_seconds: dict[str, list[float]] = {}
    sqlite_seconds: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            measure_round(Path(folder), options.rows, ledger_seconds, sqlite_seconds)
    print(f"{'rows per second':<20}{'ledger':>12}{'sqlite3':>12}{'ratio':>8}")
    for operation, seconds in ledger_seconds.items():
        line = f"{operation:<20}{options.rows / statistics.median(seconds):>12,.0f}"
        if operation in sqlite_seconds:
            baseline = statistics.median(sqlite_seconds[operation])
            line += f"{options.rows / baseline:>12,.0f}{baseline / statistics.median(seconds):>8.2f}"
        print(line)


def measure_round(
    folder: Path, rows: int, ledger_seconds: dict[str, list[float]], sqlite_seconds: dict[str, list[float]]
) -> None:
    """Run all operations on new files and append their durations."""

    def measure(seconds: dict[str, list[float]], operation: str, run: Callable[[], None]) -> None:
        started = time.perf_counter()
        run()
        seconds.setdefault(operation, []).append(time.perf_counter() - started)

    exchanges = [make_exchange(f"{number:064x}") for number in range(rows)]
    with Ledger(folder / "ledger") as ledger, Ledger(folder / "ledger batches") as batch_ledger:
        measure(ledger_seconds, "put", lambda: put_each(ledger, exchanges))
        tuples = read_rows(folder / "ledger")
        connection, batch_connection = connect(folder / "sqlite"), connect(folder / "sqlite batches")
        measure(sqlite_seconds, "put", lambda: insert_batches(connection, tuples, 1))
        measure(ledger_seconds, BATCHED_WRITE, lambda: put_batches(batch_ledger, exchanges))
        measure(sqlite_seconds, BATCHED_WRITE, lambda: insert_batches(batch_connection, tuples, BATCH))
        measure(ledger_seconds, "find", lambda: find_each(ledger, exchanges))
        measure(sqlite_seconds, "find", lambda: select_each(connection, tuples))
        connection.close()
        batch_connection.close()
    measure(ledger_seconds, "verify_ledger", lambda: check(folder / "ledger"))


def put_each(ledger: Ledger, exchanges: Sequence[Exchange]) -> None:
    for exchange in exchanges:
        ledger.put(exchange)


def put_batches(ledger: Ledger, exchanges: Sequence[Exchange]) -> None:
    for start in range(0, len(exchanges), BATCH):
        ledger.put_many(exchanges[start : start + BATCH])


def find_each(ledger: Ledger, exchanges: Sequence[Exchange]) -> None:
    for exchange in exchanges:
        assert ledger.find(exchange.request_id)


def check(path: Path) -> None:
    assert verify_ledger(path).is_valid


def insert_batches(connection: sqlite3.Connection, rows: Sequence[Row], size: int) -> None:
    for start in range(0, len(rows), size):
        connection.executemany(INSERT, rows[start : start + size])
        connection.commit()


def select_each(connection: sqlite3.Connection, rows: Sequence[Row]) -> None:
    for row in rows:
        assert connection.execute(SELECT, row[:1]).fetchall()


def connect(path: Path) -> sqlite3.Connection:
    """Create the table of the exchanges without its checksum, with the settings of the ledger."""
    connection = sqlite3.connect(path)
    for setting in ("journal_mode=WAL", "synchronous=NORMAL", "wal_autocheckpoint=8000"):
        connection.execute(f"PRAGMA {setting}")
    connection.execute(EXCHANGES.create.replace("checksum BLOB NOT NULL, ", ""))
    return connection


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a ledger without rowid and checksum."""
    connection = sqlite3.connect(path)
    rows = [row[1:-1] for row in connection.execute(EXCHANGES.select)]
    connection.close()
    return rows


def make_exchange(request_id: str) -> Exchange:
    return Exchange(
        request_id,
        attempt=1,
        temperature=0.01,
        template="support",
        prompt_hash="3c" * 6,
        judge="gpt-4o",
        revision="",
        reply=ChatReply(REPLY, "stop", TokenUsage(812, 180, 640), "gpt-4o-2024-05-13"),
        outcome="readable",
        reason=None,
    )


if __name__ == "__main__":
    main()
