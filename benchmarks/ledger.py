"""Measure writes and reads per second of the ledger, compared with sqlite3 on a table with the same columns.

    python benchmarks/ledger.py [--rows 10000] [--rounds 5] [--folder FOLDER]

The bare alternative inserts prepared tuples without checksums and commits each row (or each batch of 64); it fetches
the row of a key as a tuple. Rounds of both alternate on files of one folder; the medians are compared.
"""

import argparse
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from longreward.chat_model import ChatReply, TokenUsage
from longreward.judge.ledger import Exchange, Ledger
from longreward.judge.ledger.reader import verify_ledger
from longreward.judge.ledger.schema import EXCHANGES

T = TypeVar("T")

TEXT = "The statement is supported by the third snippet, which names the year. " * 10 + "[[Fully supported]]"
BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="a folder on the disk to measure (default: the temporary folder)")
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {}
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            for name, duration in one_round(Path(folder), arguments.rows).items():
                seconds.setdefault(name, []).append(duration)
    rate = {name: arguments.rows / statistics.median(durations) for name, durations in seconds.items()}
    print(f"{'':<24}{'ledger':>12}{'bare sqlite3':>14}{'ratio':>8}")
    for name in ("put", "put in batches of 64", "get"):
        ledger, bare = rate[name], rate[f"bare {name}"]
        print(f"{name + ' per second':<24}{ledger:>12,.0f}{bare:>14,.0f}{ledger / bare:>8.2f}")
    print(f"verify: {rate['verify']:,.0f} rows per second")


def one_round(folder: Path, rows: int) -> dict[str, float]:
    exchanges = [make_exchange(f"{n:064x}") for n in range(rows)]
    tuples = [bare_row(exchange) for exchange in exchanges]
    with Ledger(folder / "ledger") as ledger, Ledger(folder / "batches") as batch_ledger:
        bare, bare_batches = connect(folder / "bare"), connect(folder / "bare batches")
        insert = f"INSERT OR IGNORE INTO exchanges VALUES ({', '.join('?' * 16)})"
        select = "SELECT * FROM exchanges WHERE question = ?"
        durations = {
            "put": timed(lambda: [ledger.put(exchange) for exchange in exchanges]),
            "bare put": timed(lambda: [bare.executemany(insert, [row]) and bare.commit() for row in tuples]),
            "put in batches of 64": timed(lambda: [batch_ledger.put_many(batch) for batch in batches(exchanges)]),
            "bare put in batches of 64": timed(
                lambda: [bare_batches.executemany(insert, batch) and bare_batches.commit() for batch in batches(tuples)]
            ),
            "get": timed(lambda: [ledger.find(exchange.request_id) for exchange in exchanges]),
            "bare get": timed(lambda: [bare.execute(select, row[:1]).fetchall() for row in tuples]),
        }
    bare.close()
    bare_batches.close()
    return durations | {"verify": timed(lambda: verify_ledger(folder / "ledger"))}


def connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    for setting in ("journal_mode=WAL", "synchronous=NORMAL", "wal_autocheckpoint=8000"):
        connection.execute(f"PRAGMA {setting}")
    connection.execute(EXCHANGES.create.replace("checksum BLOB NOT NULL, ", ""))
    return connection


def make_exchange(request_id: str) -> Exchange:
    reply = ChatReply(TEXT, "stop", TokenUsage(812, 180, 640), "gpt-4o-2024-05-13")
    return Exchange(request_id, 1, 0.01, "support", "3c" * 6, "gpt-4o", "", reply, "readable", None)


def batches(rows: Sequence[T]) -> list[Sequence[T]]:
    return [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]


def bare_row(exchange: Exchange) -> tuple[object, ...]:
    reply, usage = exchange.reply, exchange.reply.usage
    return (
        exchange.request_id,
        exchange.attempt,
        exchange.temperature,
        exchange.template,
        exchange.prompt_hash,
        exchange.judge,
        exchange.revision,
        reply.text,
        reply.finish_reason,
        reply.model,
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.cached_tokens,
        exchange.outcome,
        exchange.reason,
        time.time(),
    )


def timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
