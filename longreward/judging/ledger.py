"""Every exchange with a judge, kept as it arrives, so that no question is paid for twice.

    exchanges: one row an answer, its key the first three fields
      question     sha256 of (judge, revision, max_tokens, extra fields, text)
      attempt      from 1 on
      temperature  that of the attempt
      outcome      "readable", "unreadable" (asked again) or "refused" (a content filter: never asked again)

The file is SQLite in WAL mode: several processes may write at once, and what was committed survives a killed process.
Answers are kept, prompts are not; their hashes say which answer belongs to which.
"""

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from longreward.errors import StateError
from longreward.judging.chat import Answer, Question, Usage

Outcome = Literal["readable", "unreadable", "refused"]


@dataclass(frozen=True)
class Exchange:
    """One recorded answer to one attempt at a question."""

    question: str
    attempt: int
    temperature: float
    template: str
    prompt_hash: str
    judge: str
    revision: str
    answer: Answer
    outcome: Outcome
    reason: str | None


@dataclass(frozen=True)
class Totals:
    """What a ledger holds, over all runs that wrote to it."""

    exchanges: int
    readable: int
    unreadable: int
    refused: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


def question_id(question: Question, *, judge: str, revision: str, extra: Mapping[str, Any]) -> str:
    """The same for two questions exactly where a judge would be asked the same thing in the same way."""
    settings = json.dumps([judge, revision, question.max_tokens, extra], sort_keys=True)  # one line
    return hashlib.sha256(f"{settings}\n{question.text}".encode("utf-8", "surrogatepass")).hexdigest()


class Ledger:
    """The store of exchanges at `path`, made where it is missing; None keeps it in memory.

    Raises StateError where the file cannot be opened, read or written. Nothing is ever deleted from it.
    """

    def __init__(self, path: Path | None, *, busy_timeout_s: float = 60.0) -> None:
        self.path = path
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            # Used by one thread at a time, but not always the one that opened it.
            self._connection = sqlite3.connect(
                path or ":memory:", timeout=busy_timeout_s, isolation_level=None, check_same_thread=False
            )
            self._prepare(until=time.monotonic() + busy_timeout_s)
        except (OSError, sqlite3.Error) as error:
            raise self._fault(error) from error

    def recorded(self, question: str) -> list[Exchange]:
        """All exchanges about the question, by attempt."""
        try:
            rows = self._connection.execute(_SELECT, (question,)).fetchall()
        except sqlite3.Error as error:
            raise self._fault(error) from error
        return [_exchange(row) for row in rows]

    def put(self, exchange: Exchange) -> None:
        """Keeps the exchange before it returns; where its key is there already, the first one stays."""
        usage = exchange.answer.usage
        row = (
            exchange.question,
            exchange.attempt,
            exchange.temperature,
            exchange.template,
            exchange.prompt_hash,
            exchange.judge,
            exchange.revision,
            exchange.answer.text.encode("utf-8", "replace").decode("utf-8"),
            exchange.answer.finish_reason,
            exchange.answer.model,
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.cached_tokens,
            exchange.outcome,
            exchange.reason,
            time.time(),
        )
        try:
            self._connection.execute(_INSERT, row)
        except sqlite3.Error as error:
            raise self._fault(error) from error

    def totals(self) -> Totals:
        """Counts over everything in the ledger."""
        try:
            row = self._connection.execute(_TOTALS).fetchone()
        except sqlite3.Error as error:
            raise self._fault(error) from error
        return Totals(*(int(value or 0) for value in row))

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(self, until: float) -> None:
        """Sets the file up; two processes that do so at once wait for each other."""
        while True:
            try:
                return self._set_up()
            except sqlite3.OperationalError as error:  # SQLite does not wait where both would go over to WAL
                busy = error.sqlite_errorname.startswith("SQLITE_BUSY")
                if not busy or time.monotonic() > until:
                    raise
                time.sleep(0.02)

    def _set_up(self) -> None:
        # WAL with NORMAL: a commit survives a killed process, and only a power cut may take the last ones.
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute("PRAGMA wal_autocheckpoint=8000")  # pages; writing hashes back in small lots is slow
        tables = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]  # after the tables: others make both
        if tables and version == 0:
            raise StateError(
                f"{self.path}: the file is another program's database; choose another place for the ledger"
            )
        if version not in (0, _VERSION):
            raise StateError(
                f"{self.path}: the ledger has version {version}, this program reads version {_VERSION}; "
                "use the program that wrote it, or move the file aside"
            )
        if version == 0:
            self._connection.executescript(_SCHEMA)

    def _fault(self, error: Exception) -> StateError:
        said = error.strerror if isinstance(error, OSError) and error.strerror else error
        return StateError(f"{self.path or 'the ledger in memory'}: {said}. {self._advice(error)}")

    def _advice(self, error: Exception) -> str:
        if not isinstance(error, sqlite3.Error):
            return "Its folder cannot be made: choose another one (LONGREWARD_STATE), or give write permission."
        name = getattr(error, "sqlite_errorname", "")
        kind = next((kind for kind in _ADVICE if name.startswith(kind)), None)
        if kind in ("SQLITE_CANTOPEN", "SQLITE_IOERR") and self.path and not os.access(self.path.parent, os.W_OK):
            kind = "SQLITE_READONLY"
        return _ADVICE[kind] if kind else "Everything committed before is kept; run the stage again."


_VERSION = 1
_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS exchanges (
    question TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    temperature REAL NOT NULL,
    template TEXT NOT NULL,
    prompt_hash TEXT NOT NULL,
    judge TEXT NOT NULL,
    revision TEXT NOT NULL,
    text TEXT NOT NULL,
    finish_reason TEXT NOT NULL,
    model TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT,
    recorded_at REAL NOT NULL,
    PRIMARY KEY (question, attempt, temperature)
);
PRAGMA user_version = {_VERSION};
COMMIT;
"""
_INSERT = f"INSERT OR IGNORE INTO exchanges VALUES ({', '.join('?' * 16)})"
_SELECT = """
SELECT question, attempt, temperature, template, prompt_hash, judge, revision, text, finish_reason, model,
       prompt_tokens, completion_tokens, cached_tokens, outcome, reason
FROM exchanges WHERE question = ? ORDER BY attempt, recorded_at
"""
_TOTALS = """
SELECT count(*), sum(outcome = 'readable'), sum(outcome = 'unreadable'), sum(outcome = 'refused'),
       sum(prompt_tokens), sum(completion_tokens), sum(cached_tokens)
FROM exchanges
"""
_KEPT = "Everything committed before is kept, and the next run goes on from there."
_ADVICE = {
    "SQLITE_FULL": f"The disk is full: free some space and run the stage again. {_KEPT}",
    "SQLITE_IOERR": f"The disk refuses to read or write (is it full?): mend that and run the stage again. {_KEPT}",
    "SQLITE_READONLY": "The file or its folder cannot be written: give write permission, or choose another state "
    "folder (LONGREWARD_STATE).",
    "SQLITE_CANTOPEN": "The file cannot be opened: is it a folder, or not yours?",
    "SQLITE_BUSY": f"Another process has kept it locked for too long: stop that one and run the stage again. {_KEPT}",
    "SQLITE_CORRUPT": "The file is damaged. Move it aside; `sqlite3 <file> .recover` may save its answers.",
    "SQLITE_NOTADB": "The file is not a ledger, or is damaged. Move it aside; a new one is made by the next run.",
}


def _exchange(row: tuple[Any, ...]) -> Exchange:
    question, attempt, temperature, template, prompt_hash, judge, revision, text, finish, model, *rest = row
    prompt_tokens, completion_tokens, cached_tokens, outcome, reason = rest
    return Exchange(
        question=question,
        attempt=attempt,
        temperature=temperature,
        template=template,
        prompt_hash=prompt_hash,
        judge=judge,
        revision=revision,
        answer=Answer(text, finish, Usage(prompt_tokens, completion_tokens, cached_tokens), model),
        outcome=outcome,
        reason=reason,
    )
