"""Throughput of the ledger against plain sqlite3 with the same columns and settings.

    python benchmarks/ledger.py [--rows 10000] [--rounds 5] [--folder FOLDER]

The sqlite3 alternative inserts ready-made tuples without a checksum, committed one by one or 64 at a time, and selects
the row of a key as a tuple. Both alternate in each round on files in one folder; rates are medians over the rounds.
"""

import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import argument_parser

from longreward.chat_model import ChatReply, TokenUsage
from longreward.judge.ledger import Exchange, Ledger
from longreward.judge.ledger.reader import verify_ledger
from longreward.judge.ledger.schema import EXCHANGES

REPLY = "The statement is supported by the third snippet, which names the year. " * 10 + "[[Fully supported]]"
BATCH = 64
BATCHED_PUT = f"put_many, {BATCH} rows"
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
    rounds = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            rounds.append(measure_round(Path(folder), options.rows))
    rates = {key: options.rows / statistics.median(seconds[key] for seconds in rounds) for key in rounds[0]}
    print(f"{'rows per second':<20}{'ledger':>12}{'sqlite3':>12}{'ratio':>8}")
    for operation in ("put", BATCHED_PUT, "find"):
        ledger, plain = rates[operation, "ledger"], rates[operation, "sqlite3"]
        print(f"{operation:<20}{ledger:>12,.0f}{plain:>12,.0f}{ledger / plain:>8.2f}")
    print(f"{'verify_ledger':<20}{rates['verify_ledger', 'ledger']:>12,.0f}")


def measure_round(folder: Path, rows: int) -> dict[tuple[str, str], float]:
    """Run all operations on new files; return the seconds by operation and store."""
    seconds = {}

    @contextmanager
    def timer(operation: str, store: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        seconds[operation, store] = time.perf_counter() - started

    exchanges = [make_exchange(f"{number:064x}") for number in range(rows)]
    batch_starts = range(0, rows, BATCH)
    with Ledger(folder / "ledger") as ledger, Ledger(folder / "ledger batches") as batch_ledger:
        with timer("put", "ledger"):
            for exchange in exchanges:
                ledger.put(exchange)
        tuples = read_rows(folder / "ledger")  # exactly the values that the ledger wrote
        connection, batch_connection = connect(folder / "sqlite"), connect(folder / "sqlite batches")
        with timer("put", "sqlite3"):
            for row in tuples:
                connection.execute(INSERT, row)
                connection.commit()
        with timer(BATCHED_PUT, "ledger"):
            for start in batch_starts:
                batch_ledger.put_many(exchanges[start : start + BATCH])
        with timer(BATCHED_PUT, "sqlite3"):
            for start in batch_starts:
                batch_connection.executemany(INSERT, tuples[start : start + BATCH])
                batch_connection.commit()
        with timer("find", "ledger"):
            for exchange in exchanges:
                ledger.find(exchange.request_id)
        with timer("find", "sqlite3"):
            for row in tuples:
                connection.execute(SELECT, row[:1]).fetchall()
        connection.close()
        batch_connection.close()
    with timer("verify_ledger", "ledger"):
        verify_ledger(folder / "ledger")
    return seconds


def connect(path: Path) -> sqlite3.Connection:
    """Create the table of the exchanges without its checksum, with the settings of the ledger."""
    connection = sqlite3.connect(path)
    # The settings of longreward/judge/ledger/store.py; others would change how often SQLite waits for the disk.
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
