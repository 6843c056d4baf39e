"""Ledgers as tests fill them."""

import sqlite3
from pathlib import Path

from longreward.chat_model import ChatReply, TokenUsage
from longreward.judge.ledger import Exchange


def exchange(question: str, text: str = "[[7]]") -> Exchange:
    return Exchange(
        question, 1, 0.01, "support", "p", "j", "", ChatReply(text, "stop", TokenUsage(10, 2, 1)), "readable", None
    )


VERSION_1 = """
CREATE TABLE exchanges (
    question TEXT NOT NULL, attempt INTEGER NOT NULL, temperature REAL NOT NULL, template TEXT NOT NULL,
    prompt_hash TEXT NOT NULL, judge TEXT NOT NULL, revision TEXT NOT NULL, text TEXT NOT NULL,
    finish_reason TEXT NOT NULL, model TEXT NOT NULL, prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, outcome TEXT NOT NULL, reason TEXT,
    recorded_at REAL NOT NULL, PRIMARY KEY (question, attempt, temperature)
);
CREATE TABLE vectors (
    key BLOB PRIMARY KEY, vector BLOB NOT NULL, model TEXT NOT NULL, revision TEXT NOT NULL, recorded_at REAL NOT NULL
);
PRAGMA user_version = 1;
"""


def of_version_1(path: Path, rows: int) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(VERSION_1)
        connection.executemany(
            "INSERT INTO exchanges VALUES (?, 1, 0.01, 'support', 'p', 'j', '', '[[7]]', 'stop', '', 10, 2, 1, "
            "'readable', NULL, 1700000000.25)",
            [(f"q{n}",) for n in range(rows)],
        )
        connection.execute("INSERT INTO vectors VALUES (x'61', x'003c', 'm', '', 1700000000)")
    connection.close()
