"""Every exchange with a judge, kept as it arrives, so that no question is paid for twice.

    exchanges: one row an answer, its key the first three fields
      question     sha256 of (judge, revision, max_tokens, extra fields, text)
      attempt      from 1 on
      temperature  that of the attempt
      outcome      "readable", "unreadable" (asked again) or "refused" (a content filter: never asked again)

The vectors of `longreward.retrieval.embedding_cache` lie in the same file (`longreward.judge.ledger.store`).
Answers are kept, prompts are not; their hashes say which answer belongs to which.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from longreward.chat_model import ChatReply, ChatRequest, TokenUsage
from longreward.judge.ledger.schema import EXCHANGES, with_checksum
from longreward.judge.ledger.store import Store

Outcome = Literal["readable", "unreadable", "refused"]


@dataclass(frozen=True)
class Exchange:
    """One recorded answer to one attempt at a question."""

    request_id: str
    attempt: int
    temperature: float
    template: str
    prompt_hash: str
    judge: str
    revision: str
    reply: ChatReply
    outcome: Outcome
    reason: str | None


@dataclass(frozen=True)
class LedgerTotals:
    """What a ledger holds, over all runs that wrote to it."""

    exchanges: int
    readable: int
    unreadable: int
    refused: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


def request_id(question: ChatRequest, *, judge: str, revision: str, extra: Mapping[str, Any]) -> str:
    """The same for two questions exactly where a judge would be asked the same thing in the same way."""
    own: list[str | int] = [question.system] if question.system or question.top_logprobs else []
    own += [question.top_logprobs] if question.top_logprobs else []
    settings = json.dumps([judge, revision, question.max_tokens, extra, *own], sort_keys=True)  # one line
    return hashlib.sha256(f"{settings}\n{question.text}".encode("utf-8", "surrogatepass")).hexdigest()


class Ledger(Store):
    """The store of exchanges at `path`, made where it is missing; None keeps it in memory. Threads may share it.

    Raises StateError where the file cannot be opened, read or written. Nothing is ever deleted from it.
    """

    def __init__(self, path: Path | None, *, busy_timeout_s: float = 60.0) -> None:
        super().__init__(path, busy_timeout_s=busy_timeout_s)

    def find(self, request_id: str) -> list[Exchange]:
        """All exchanges about the question, by attempt; damaged ones are put aside and not among them."""
        found = self._find(EXCHANGES, (request_id,))
        return [_exchange(row) for row in sorted(found, key=_by_attempt)]

    def put(self, exchange: Exchange) -> None:
        """Keeps the exchange before it returns; where its key is there already, the first one stays."""
        self._rows(EXCHANGES.insert, with_checksum(_row(exchange, time.time())))

    def put_many(self, exchanges: Iterable[Exchange]) -> None:
        """Keeps all of them, in one commit, before it returns, or none; each as `put` does."""
        now = time.time()
        self._insert(EXCHANGES, [_row(exchange, now) for exchange in exchanges])

    def totals(self) -> LedgerTotals:
        """Counts over everything in the ledger."""
        (row,) = self._rows(_TOTALS)
        return LedgerTotals(*(int(value or 0) for value in row))


_MOST = 2**63 - 1  # SQLite's largest integer; a server may count what it likes
_TOTALS = """
SELECT count(*), sum(outcome = 'readable'), sum(outcome = 'unreadable'), sum(outcome = 'refused'),
       sum(prompt_tokens), sum(completion_tokens), sum(cached_tokens)
FROM exchanges
"""


def _row(exchange: Exchange, now: float) -> tuple[Any, ...]:
    usage = exchange.reply.usage
    return (
        exchange.request_id,
        int(exchange.attempt),
        float(exchange.temperature),
        exchange.template,
        exchange.prompt_hash,
        _storable(exchange.judge),
        _storable(exchange.revision),
        _storable(exchange.reply.text),
        _storable(exchange.reply.finish_reason),
        _storable(exchange.reply.model),
        *(
            min(max(0, int(tokens)), _MOST)
            for tokens in (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)
        ),
        exchange.outcome,
        None if exchange.reason is None else _storable(exchange.reason),
        now,
    )


def _storable(text: str) -> str:
    """Half a surrogate pair, which JSON may hold and UTF-8 may not, becomes a question mark."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _by_attempt(row: tuple[Any, ...]) -> tuple[int, float]:
    return row[1], row[-1]


def _exchange(row: tuple[Any, ...]) -> Exchange:
    question, attempt, temperature, template, prompt_hash, judge, revision, text, finish, model, *rest = row
    prompt_tokens, completion_tokens, cached_tokens, outcome, reason, _ = rest
    return Exchange(
        request_id=question,
        attempt=attempt,
        temperature=temperature,
        template=template,
        prompt_hash=prompt_hash,
        judge=judge,
        revision=revision,
        reply=ChatReply(text, finish, TokenUsage(prompt_tokens, completion_tokens, cached_tokens), model),
        outcome=outcome,
        reason=reason,
    )
