"""Every exchange with a judge, stored when its reply arrives, so that no request is paid for twice.

The key of an exchange is its request id, the number of the attempt and the temperature. The ledger stores replies but
no prompts: the request id is a hash of the prompt, the judge and the settings that affect the reply.
"""

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from longreward.chat_model import ChatReply, ChatRequest, TokenUsage
from longreward.judge.ledger.schema import EXCHANGES, with_checksum
from longreward.judge.ledger.store import Store

Outcome = Literal["readable", "unreadable", "refused"]
"""`unreadable`: no verdict could be parsed, and the request is repeated. `refused`: a content filter; not repeated."""

MAX_INTEGER = 2**63 - 1  # SQLite's; token counts come from the server and may have any size
COUNT_TOTALS = """
SELECT count(*), sum(outcome = 'readable'), sum(outcome = 'unreadable'), sum(outcome = 'refused'),
       sum(prompt_tokens), sum(completion_tokens), sum(cached_tokens)
FROM exchanges
"""


@dataclass(frozen=True)
class Exchange:
    """The reply to one attempt at a request."""

    request_id: str
    attempt: int
    """Starts at 1."""
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
    """Counts over all runs that wrote to a ledger."""

    exchanges: int
    readable: int
    unreadable: int
    refused: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


def request_id(request: ChatRequest, *, judge: str, revision: str, extra: Mapping[str, Any]) -> str:
    """Return the SHA-256 of everything that affects the reply; `extra` holds further fields of the request body."""
    # Fields that were added later enter the hash only when they are set, so the ids of older requests stay valid.
    optional: list[Any] = [request.system, request.top_logprobs, request.turns, request.reply_format.schema]
    while optional and not optional[-1]:
        optional.pop()
    settings = json.dumps([judge, revision, request.max_tokens, extra, *optional], sort_keys=True)
    return hashlib.sha256(f"{settings}\n{request.text}".encode("utf-8", "surrogatepass")).hexdigest()


class Ledger(Store):
    """The exchanges in the SQLite file at `path`, which is created if it is missing; None keeps them in memory.

    Threads and processes may share a ledger. Methods raise StateError if the file cannot be read or written.
    """

    def find(self, request_id: str) -> list[Exchange]:
        """Return the exchanges of a request, sorted by attempt; damaged ones are deleted and left out."""
        rows = self._select(EXCHANGES, (request_id,))
        # Not in the order of insertion: merged ledgers may have inserted a second attempt before the first.
        return [_exchange_from_row(row) for row in sorted(rows, key=lambda row: (row[1], row[-1]))]

    def put(self, exchange: Exchange) -> None:
        """Commit the exchange; if its key exists already, the stored exchange stays."""
        self._query(EXCHANGES.insert, with_checksum(_row_from_exchange(exchange, time.time())))

    def put_many(self, exchanges: Iterable[Exchange]) -> None:
        """Commit all exchanges in one transaction; existing keys stay as with `put`."""
        now = time.time()
        self._insert(EXCHANGES, [_row_from_exchange(exchange, now) for exchange in exchanges])

    def totals(self) -> LedgerTotals:
        """Count all exchanges and tokens in the ledger."""
        (row,) = self._query(COUNT_TOTALS)
        return LedgerTotals(*(int(value or 0) for value in row))


def _row_from_exchange(exchange: Exchange, recorded_at: float) -> tuple[Any, ...]:
    reply, usage = exchange.reply, exchange.reply.usage
    tokens = (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)
    return (
        exchange.request_id,
        int(exchange.attempt),
        float(exchange.temperature),
        exchange.template,
        exchange.prompt_hash,
        _valid_utf8(exchange.judge),
        _valid_utf8(exchange.revision),
        _valid_utf8(reply.text),
        _valid_utf8(reply.finish_reason),
        _valid_utf8(reply.model),
        *(min(max(0, int(count)), MAX_INTEGER) for count in tokens),
        exchange.outcome,
        None if exchange.reason is None else _valid_utf8(exchange.reason),
        recorded_at,
    )


def _exchange_from_row(row: tuple[Any, ...]) -> Exchange:
    request_id, attempt, temperature, template, prompt_hash, judge, revision, text, finish_reason, model, *rest = row
    prompt_tokens, completion_tokens, cached_tokens, outcome, reason, _ = rest
    return Exchange(
        request_id=request_id,
        attempt=attempt,
        temperature=temperature,
        template=template,
        prompt_hash=prompt_hash,
        judge=judge,
        revision=revision,
        reply=ChatReply(text, finish_reason, TokenUsage(prompt_tokens, completion_tokens, cached_tokens), model),
        outcome=outcome,
        reason=reason,
    )


def _valid_utf8(text: str) -> str:
    """Replace lone surrogates by question marks: JSON replies may contain them, SQLite cannot store them."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
