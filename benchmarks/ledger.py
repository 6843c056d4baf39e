"""Puts and gets a second of the ledger, against bare sqlite3 on a table of the same columns with the same settings.

    python benchmarks/ledger.py [--rows 10000] [--rounds 5] [--folder FOLDER]

The bare alternative inserts a tuple that is ready, without checksum, and commits each row (or each lot of 64); it
fetches the row of a key as a tuple. Rounds of both alternate on files of one folder; the medians are compared.
"""

import argparse
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from longreward.chat_model import ChatReply, TokenUsage
from longreward.judge.ledger import Exchange, Ledger
from longreward.judge.ledger.reader import verify_ledger
from longreward.judge.ledger.schema import EXCHANGES

TEXT = "The statement is supported by the third snippet, which names the year. " * 10 + "[[Fully supported]]"
LOT = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on the disk to measure (default: the temporary folder's)")
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {}
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            for name, taken in one_round(Path(folder), arguments.rows).items():
                seconds.setdefault(name, []).append(taken)
    rate = {name: arguments.rows / statistics.median(taken) for name, taken in seconds.items()}
    print(f"{'':<24}{'ledger':>12}{'bare sqlite3':>14}{'ratio':>8}")
    for name in ("put", "put in lots of 64", "get"):
        ours, bare = rate[name], rate[f"bare {name}"]
        print(f"{name + ', a second':<24}{ours:>12,.0f}{bare:>14,.0f}{ours / bare:>8.2f}")
    print(f"verify: {rate['verify']:,.0f} rows a second")


def one_round(folder: Path, rows: int) -> dict[str, float]:
    exchanges = [exchange(f"{n:064x}") for n in range(rows)]
    tuples = [bare_row(each) for each in exchanges]
    lots = range(0, rows, LOT)
    with Ledger(folder / "ours") as ours, Ledger(folder / "our lots") as our_lots:
        bare, bare_lots = opened(folder / "bare"), opened(folder / "bare lots")
        insert = f"INSERT OR IGNORE INTO exchanges VALUES ({', '.join('?' * 16)})"
        select = "SELECT * FROM exchanges WHERE question = ?"
        taken = {
            "put": timed(lambda: [ours.put(each) for each in exchanges]),
            "bare put": timed(lambda: [bare.executemany(insert, [row]) and bare.commit() for row in tuples]),
            "put in lots of 64": timed(lambda: [our_lots.put_many(exchanges[at : at + LOT]) for at in lots]),
            "bare put in lots of 64": timed(
                lambda: [bare_lots.executemany(insert, tuples[at : at + LOT]) and bare_lots.commit() for at in lots]
            ),
            "get": timed(lambda: [ours.find(each.request_id) for each in exchanges]),
            "bare get": timed(lambda: [bare.execute(select, row[:1]).fetchall() for row in tuples]),
        }
    bare.close()
    bare_lots.close()
    return taken | {"verify": timed(lambda: verify_ledger(folder / "ours"))}


def opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    for setting in ("journal_mode=WAL", "synchronous=NORMAL", "wal_autocheckpoint=8000"):
        connection.execute(f"PRAGMA {setting}")
    connection.execute(EXCHANGES.create.replace("checksum BLOB NOT NULL, ", ""))
    return connection


def exchange(question: str) -> Exchange:
    answer = ChatReply(TEXT, "stop", TokenUsage(812, 180, 640), "gpt-4o-2024-05-13")
    return Exchange(question, 1, 0.01, "support", "3c" * 6, "gpt-4o", "", answer, "readable", None)


def bare_row(each: Exchange) -> tuple[object, ...]:
    said, usage = each.reply, each.reply.usage
    return (
        *(each.request_id, each.attempt, each.temperature, each.template, each.prompt_hash, each.judge, each.revision),
        *(said.text, said.finish_reason, said.model),
        *(usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, each.outcome, each.reason, time.time()),
    )


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
