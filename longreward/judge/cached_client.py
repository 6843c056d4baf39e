"""Query one model until its reply can be parsed: look up the ledger, send, parse, record, repeat if unreadable."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from longreward.chat_model import ChatModel, ChatReply, ChatRequest
from longreward.errors import JudgeRefused, PromptTooLong, RequestFailed, RequestRefused
from longreward.judge.attempts import Attempt, Attempts, ParsedReply
from longreward.judge.budget import Account, Budget
from longreward.judge.circuit_breaker import CircuitBreaker
from longreward.judge.claims import Claims
from longreward.judge.config import JudgeConfig
from longreward.judge.ledger import Exchange, Ledger, Outcome, request_id
from longreward.judge.rate_limiter import RateLimiter
from longreward.judge.retry import RetryingClient
from longreward.judge.schema_support import SchemaSupport
from longreward.judge.structured_output import json_parser, truncated_json_parser, verdict_schema
from longreward.judge.truncation import TruncatedParser

T = TypeVar("T")

CLIENT_COUNTS = (
    "calls",
    "ledger_hits",
    "shared",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "unreadable",
    "reminders",
    "refused",
    "truncated",
)


class CachedJudgeClient:
    """A client of one model that records every exchange and sends no request twice.

    It closes the model; the ledger is closed by its owner.
    """

    def __init__(
        self,
        model: ChatModel,
        config: JudgeConfig,
        ledger: Ledger,
        limiter: RateLimiter,
        account: Account | None = None,
    ) -> None:
        self.counts = dict.fromkeys(CLIENT_COUNTS, 0)
        self.retrying = RetryingClient(model, config, limiter, account or Budget().account(config))
        self.schemas = SchemaSupport(self.retrying, config, ledger, model_name=model.name)
        self.breaker = CircuitBreaker(model.name, config.stop_after_unreadable)
        self._model = model
        self._config = config
        self._ledger = ledger
        self._claims = Claims(ledger.path)
        self._key_settings = _key_settings(config)
        self._in_flight: dict[str, _InFlight] = {}
        self._exhausted: set[str] = set()  # keys of requests that completed their round of attempts in this run
        # A limit in extra_body replaces ours in every request, so a larger one of ours would change nothing.
        has_fixed_limit = config.sent_length_field in config.extra_body
        self._max_tokens_limit = 0 if has_fixed_limit else config.max_reply_tokens

    @property
    def name(self) -> str:
        """The model's name."""
        return self._model.name

    async def query(
        self,
        request: ChatRequest,
        parse: Callable[[str], T | None],
        parse_truncated: TruncatedParser[T] | None = None,
    ) -> ParsedReply[T]:
        """Return the parsed reply to `request`; see `Judge.query`."""
        structured = request.reply_format.structured
        if structured is not None and await self.schemas.is_used():
            list_length = request.reply_format.list_length
            # In a thread: the material of a long document takes time to escape.
            request = await asyncio.to_thread(
                structured.request, request.slots, system=request.system, max_tokens=request.max_tokens
            )
            request = replace(request, reply_format=replace(request.reply_format, list_length=list_length))
            if (schema := request.reply_format.schema) is not None:
                # A reply to a reminder has no analysis.
                schema = verdict_schema(schema)
                if parse_truncated is not None:
                    parse_truncated = truncated_json_parser(parse, schema)
                parse = json_parser(parse, schema)
        key = self._key_for(request)
        # Nothing is awaited from here until the round is in `_in_flight`, or two equal requests could both start one.
        in_flight = self._in_flight.get(key)
        if in_flight is not None:
            self.counts["shared"] += 1
            return replace(await self._wait_for(in_flight), calls=0)
        if self._config.truncated_replies == "as_complete":
            parse_truncated = None
        attempts = Attempts(
            request,
            parse,
            parse_truncated,
            self._config,
            key=key,
            key_for=self._key_for,
            find_exchanges=self._ledger.find,
            max_tokens_limit=self._max_tokens_limit,
        )
        cached = attempts.result()
        if cached is not None and cached.value is not None:
            self.breaker.record_readable(request.template)
        # A shard that is scored again within this run must not start a new round of attempts.
        if cached is None and key in self._exhausted:
            cached = attempts.unreadable_result()
        if cached is not None:
            self.counts["ledger_hits"] += 1
            return cached
        in_flight = _InFlight(key, asyncio.ensure_future(self._complete_round(key, attempts)))
        self._in_flight[key] = in_flight
        return await self._wait_for(in_flight)

    async def close(self) -> None:
        """Cancel calls that nobody waits for any more, and close the model."""
        tasks = [in_flight.task for in_flight in self._in_flight.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._claims.close()
        await self._model.close()

    async def _wait_for(self, in_flight: "_InFlight") -> ParsedReply[Any]:
        """Wait for a shared task, and cancel it once nobody waits for it any more."""
        in_flight.waiters += 1
        try:
            return await asyncio.shield(in_flight.task)
        finally:
            in_flight.waiters -= 1
            if in_flight.waiters == 0:
                if self._in_flight.get(in_flight.key) is in_flight:
                    del self._in_flight[in_flight.key]
                in_flight.task.cancel()  # no effect on a finished task

    async def _complete_round(self, key: str, attempts: Attempts[T]) -> ParsedReply[T]:
        """Make attempts until one decides the outcome or the round is complete."""
        calls = 0
        while True:
            attempt = attempts.next()
            try:
                exchange, called = await self._make_attempt(attempt, attempts)
            except (RequestFailed, PromptTooLong) as error:
                if isinstance(error, PromptTooLong):
                    self.breaker.record_too_long(attempt.request.template, key, str(error))
                return replace(attempts.failed_result(str(error), judge=self._model.name), calls=calls)
            finally:
                self._claims.release(attempt.key)
            if exchange is None:
                if attempt.has_reminder:
                    attempts.reject_reminder()
                else:
                    attempts.reject_raised_limit()
                continue
            attempts.add(exchange)
            calls += called
            template = attempt.request.template
            if (result := attempts.result()) is not None:
                if result.value is not None:
                    self.breaker.record_readable(template)
                return replace(result, calls=calls)
            exhausted = attempts.is_round_complete
            if exhausted:
                self._exhausted.add(key)
            self.breaker.record_unreadable(
                template,
                key,
                reply=exchange.reply.text,
                reason=exchange.reason or "",
                exhausted=exhausted,
                schema=attempt.request.reply_format.schema,
            )
            if exhausted:
                return replace(attempts.unreadable_result(), calls=calls)

    async def _make_attempt(self, attempt: Attempt, attempts: Attempts[Any]) -> tuple[Exchange | None, bool]:
        """Send one request, parse the reply and record the exchange.

        Returns the exchange and whether it was made now, not by another process meanwhile. The exchange is None where
        the server refuses the raised token limit or the reminder. Nothing is awaited between the reply and the ledger,
        so no reply is lost to a cancellation.
        """
        self.counts["calls"] += 1
        try:
            reply = await self._send(attempt)
        except JudgeRefused:
            if attempt.has_reminder:  # other reasons come back with the request alone
                self.counts["calls"] -= 1
                return None, False
            if not attempt.has_raised_limit:
                raise
            # "max_tokens is too large" holds for every prompt; other reasons come back with the original limit.
            self._max_tokens_limit = attempt.request.max_tokens // 2
            self.counts["calls"] -= 1
            return None, False
        except RequestRefused as refusal:
            # The prompt with this limit, or with the reply and the reminder, exceeds the context window.
            if attempt.has_raised_limit or attempt.has_reminder:
                self.counts["calls"] -= 1
                return None, False
            if isinstance(refusal, PromptTooLong):  # not recorded: the next run may have a server with a larger window
                self.counts["refused"] += 1
                raise
            return self._record(attempt, ChatReply("", "content_filter"), "refused", str(refusal)), True
        if reply is None:
            exchange = self._find_recorded(attempt)
            assert exchange is not None, "nothing is deleted from the ledger"
            self.counts["calls"] -= 1
            self.counts["ledger_hits"] += 1
            return exchange, False
        self.counts["reminders"] += attempt.has_reminder
        if attempts.complete_value(reply) is not None:
            return self._record(attempt, reply, "readable", None), True
        max_tokens = attempt.request.max_tokens + self._config.thinking_tokens
        reason = attempts.unreadable_reason(reply, max_tokens=max_tokens)
        return self._record(attempt, reply, "unreadable", reason), True

    async def _send(self, attempt: Attempt) -> ChatReply | None:
        """Return the model's reply; None where the ledger has one by now, from another process."""
        can_wait = True

        def is_recorded() -> bool:
            # In this order: another process records its reply before it releases its claim.
            if not self._claims.acquire(attempt.key) and can_wait:
                raise _ClaimedByOther
            return self._find_recorded(attempt) is not None

        while True:
            try:
                return await self.retrying.complete(
                    attempt.request, temperature=attempt.temperature, is_recorded=is_recorded
                )
            except _ClaimedByOther:
                # Without a slot, so that this process sends other requests meanwhile. A process that was stopped, or
                # repeats a failing request for longer than this, is not waited for.
                can_wait = await self._claims.wait(attempt.key, timeout_s=self._config.timeout_s)
            if self._find_recorded(attempt) is not None:
                return None

    def _find_recorded(self, attempt: Attempt) -> Exchange | None:
        for exchange in self._ledger.find(attempt.key):
            if (exchange.attempt, exchange.temperature) == (attempt.number, attempt.temperature):
                return exchange
        return None

    def _key_for(self, request: ChatRequest) -> str:
        return request_id(request, judge=self._model.name, revision=self._config.revision, extra=self._key_settings)

    def _record(self, attempt: Attempt, reply: ChatReply, outcome: Outcome, reason: str | None) -> Exchange:
        if outcome != "readable":
            self.counts[outcome] += 1
        self.counts["truncated"] += reply.finish_reason == "length"
        self.counts["prompt_tokens"] += reply.usage.prompt_tokens
        self.counts["completion_tokens"] += reply.usage.completion_tokens
        self.counts["cached_tokens"] += reply.usage.cached_tokens
        exchange = Exchange(
            request_id=attempt.key,
            attempt=attempt.number,
            temperature=attempt.temperature,
            template=attempt.request.template,
            prompt_hash=attempt.request.prompt_hash,
            judge=self._model.name,
            revision=self._config.revision,
            reply=reply,
            outcome=outcome,
            reason=reason,
        )
        self._ledger.put(exchange)
        return exchange


class _ClaimedByOther(Exception):
    """Another process has the request in flight."""


@dataclass
class _InFlight:
    """A request in flight and the number of callers that wait for it."""

    key: str
    task: asyncio.Future[ParsedReply[Any]]
    waiters: int = 0

    def __post_init__(self) -> None:
        # Retrieves the exception of a task without waiters, which asyncio would otherwise log as never retrieved.
        self.task.add_done_callback(lambda task: task.cancelled() or task.exception())


def _key_settings(config: JudgeConfig) -> Mapping[str, Any]:
    """Return the settings that are part of the ledger's key. Their form must never change: recorded keys contain it."""
    settings = {"system": config.system, "thinking_tokens": config.thinking_tokens}
    if not any(settings.values()) and "extra_body" not in config.extra_body:
        return config.extra_body
    return {"extra_body": config.extra_body, **{name: value for name, value in settings.items() if value}}
