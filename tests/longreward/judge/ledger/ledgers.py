"""Builders of exchanges and ledger files for tests."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path

import pytest

from longreward.chat_model import ChatReply, TokenUsage
from longreward.judge.ledger import Exchange, Ledger


def make_exchange(request_id: str, text: str = "[[7]]") -> Exchange:
    reply = ChatReply(text, "stop", TokenUsage(10, 2, 1))
    return Exchange(request_id, 1, 0.01, "support", "p", "j", "", reply, "readable", None)


def write_ledger(path: Path, replies: Mapping[str, tuple[str, float]]) -> Path:
    """Create a ledger with one exchange per request id, each with its reply and the time at which it was recorded."""
    with pytest.MonkeyPatch.context() as patch, Ledger(path) as ledger:
        for request_id, (text, recorded_at) in replies.items():
            patch.setattr("longreward.judge.ledger.exchanges.time.time", lambda time=recorded_at: time)
            ledger.put(make_exchange(request_id, text))
    return path


def read_replies(path: Path) -> dict[str, str]:
    """Return the reply of each request id, read without the library."""
    with sqlite3.connect(path) as connection:
        return dict(connection.execute("SELECT question, text FROM exchanges ORDER BY question").fetchall())


def execute(path: Path, statement: str) -> list[tuple[object, ...]]:
    """Run one SQL statement in a separate connection."""
    with sqlite3.connect(path) as connection:
        return connection.execute(statement).fetchall()
