"""Asking one model until its answer can be read, with every exchange kept and no question asked twice."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from longreward.chat_model import ChatModel, ChatReply, ChatRequest
from longreward.errors import JudgeRefused, RequestFailed, RequestRefused
from longreward.judge.attempts import (
    Attempt,
    Attempts,
    ParsedReply,
    ReplyParser,
    exhausted,
    failed,
    reading_of,
    why_unreadable,
)
from longreward.judge.budget import Account, Budget
from longreward.judge.circuit_breaker import CircuitBreaker
from longreward.judge.config import JudgeConfig
from longreward.judge.ledger import Exchange, Ledger, Outcome, request_id
from longreward.judge.rate_limiter import RateLimiter
from longreward.judge.retry import RetryingClient
from longreward.judge.truncation import ReadTruncated

T = TypeVar("T")


class CachedJudgeClient:
    """One model with its ways of being asked. The ledger is the caller's to close, the model its own."""

    def __init__(
        self,
        model: ChatModel,
        config: JudgeConfig,
        ledger: Ledger,
        limiter: RateLimiter,
        account: Account | None = None,
    ) -> None:
        self._config = config
        self._model = model
        self._ledger = ledger
        self.caller = RetryingClient(model, config, limiter, account or Budget().account(config))
        self._settings = _settings(config)
        self._running: dict[str, _Shared] = {}
        self._exhausted: set[str] = set()  # questions that had their attempts in this run
        body_sets_limit = (config.length_field or config.preset.length_field) in config.extra_body
        self._largest_limit = 0 if body_sets_limit else config.max_reply_tokens
        self.breaker = CircuitBreaker(model.name, config.stop_after_unreadable)
        self.counts = dict.fromkeys(CLIENT_COUNTS, 0)

    @property
    def name(self) -> str:
        """The model's name."""
        return self._model.name

    async def query(
        self,
        request: ChatRequest,
        parse: Callable[[str], T | None],
        parse_truncated: ReadTruncated[T] | None = None,
    ) -> ParsedReply[T]:
        """The answer to `request` as `read` understands it; see `Judge.ask`."""
        key = self._key_of(request)
        shared = self._running.get(key)
        if shared is not None:
            self.counts["shared"] += 1
            return replace(await self._wait_for(shared), calls=0)
        attempts = self._attempts(request, parse, parse_truncated)
        found = self._settled(attempts)
        if found is None and key in self._exhausted:
            found = exhausted(attempts.exchanges, calls=0)  # by this run: another round is the next run's
        elif found is not None and found.value is not None:
            self.breaker.record_readable(request.template)
        if found is not None:
            self.counts["ledger_hits"] += 1
            return found
        shared = _Shared(key, asyncio.ensure_future(self._pursue(key, attempts)))
        self._running[key] = shared
        return await self._wait_for(shared)

    async def close(self) -> None:
        """Ends calls that nobody waits for any more and lets go of the model's connections."""
        tasks = [shared.task for shared in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._model.close()

    async def _wait_for(self, shared: "_Shared") -> ParsedReply[Any]:
        """The task's result; the task itself ends only when the last one that waits for it is cancelled."""
        shared.waiting += 1
        try:
            return await asyncio.shield(shared.task)
        finally:
            shared.waiting -= 1
            if shared.waiting == 0:
                if self._running.get(shared.question) is shared:
                    del self._running[shared.question]
                shared.task.cancel()  # nothing where it is done

    def _attempts(
        self, request: ChatRequest, read: Callable[[str], T | None], read_truncated: ReadTruncated[T] | None
    ) -> Attempts[T]:
        """What the ledger knows of the request."""
        config = self._config
        if config.truncated_replies == "as_complete":
            read_truncated = None
        return Attempts(
            request,
            ReplyParser(config, read, read_truncated),
            key_of=self._key_of,
            recorded=self._ledger.find,
            largest_limit=self._largest_limit,
        )

    def _settled(self, attempts: Attempts[T]) -> ParsedReply[T] | None:
        """The reading, where an exchange settles the request."""
        if (complete := attempts.readable()) is not None:
            return reading_of(attempts.exchanges, complete[1], complete[0])
        if (refusal := attempts.refused()) is not None:
            return reading_of(attempts.exchanges, None, refusal)
        if (partial := attempts.partial()) is not None:
            return reading_of(attempts.exchanges, partial[1], partial[0], truncated=True)
        return None

    async def _pursue(self, key: str, attempts: Attempts[T]) -> ParsedReply[T]:
        """Asks until a reply can be read, or the round of attempts is complete."""
        calls = 0
        while True:
            attempt = attempts.next()
            template = attempt.question.template
            try:
                exchange, called = await self._exchange(attempt, attempts.parser)
            except RequestFailed as failure:
                return failed(attempts.exchanges, str(failure), calls=calls, judge=self._model.name)
            if exchange is None:
                attempts.keep_limit()
                continue
            attempts.add(exchange)
            calls += called
            if (settled := self._settled(attempts)) is not None:
                if settled.value is not None:
                    self.breaker.record_readable(template)
                return replace(settled, calls=calls)
            if attempts.is_round_complete:
                self._exhausted.add(key)
            self.breaker.record_unreadable(
                template,
                key,
                reply=exchange.reply.text,
                reason=exchange.reason or "",
                exhausted=attempts.is_round_complete,
            )
            if attempts.is_round_complete:
                return exhausted(attempts.exchanges, calls=calls)

    async def _exchange(self, attempt: Attempt, parser: ReplyParser[Any]) -> tuple[Exchange | None, bool]:
        """One call, read and kept without a pause in between, so that no answer is lost to a cancellation.

        The last is False where another process had made it before this call could begin. No exchange: the server
        refuses the raised token limit.
        """
        outcome: Outcome
        reason: str | None = None
        self.counts["calls"] += 1
        try:
            answer = await self._call(attempt)
        except (RequestRefused, JudgeRefused) as refusal:
            if attempt.is_raised:
                self.counts["calls"] -= 1
                if isinstance(refusal, JudgeRefused):  # whatever the prompt: "max_tokens is too large"
                    self._largest_limit = attempt.question.max_tokens // 2
                return None, False
            if isinstance(refusal, JudgeRefused):
                raise
            answer, outcome, reason = ChatReply("", "content_filter"), "refused", str(refusal)
        else:
            if answer is None:
                return self._made_meanwhile(attempt), False
            outcome = "readable" if parser.complete(answer) is not None else "unreadable"
            if outcome == "unreadable":
                reason = why_unreadable(
                    answer, thinking_tokens=self._config.thinking_tokens, limit=self._limit(attempt.question)
                )
        self._count(outcome, answer)
        exchange = Exchange(
            request_id=attempt.key,
            attempt=attempt.number,
            temperature=attempt.temperature,
            template=attempt.question.template,
            prompt_hash=attempt.question.prompt_hash,
            judge=self._model.name,
            revision=self._config.revision,
            reply=answer,
            outcome=outcome,
            reason=reason,
        )
        self._ledger.put(exchange)
        return exchange, True

    async def _call(self, attempt: Attempt) -> ChatReply | None:
        """The model's answer; None where the ledger has one by now, from another process."""
        return await self.caller.call(
            attempt.question,
            temperature=attempt.temperature,
            made=lambda: self._recorded(attempt) is not None,
        )

    def _recorded(self, attempt: Attempt) -> Exchange | None:
        made = self._ledger.find(attempt.key)
        wanted = (attempt.number, attempt.temperature)
        return next((each for each in made if (each.attempt, each.temperature) == wanted), None)

    def _made_meanwhile(self, attempt: Attempt) -> Exchange:
        exchange = self._recorded(attempt)
        assert exchange is not None, "nothing leaves the ledger"
        self.counts["calls"] -= 1
        self.counts["ledger_hits"] += 1
        return exchange

    def _key_of(self, question: ChatRequest) -> str:
        return request_id(question, judge=self._model.name, revision=self._config.revision, extra=self._settings)

    def _limit(self, question: ChatRequest) -> int:
        return question.max_tokens + self._config.thinking_tokens

    def _count(self, outcome: Outcome, answer: ChatReply) -> None:
        usage = answer.usage
        if outcome != "readable":
            self.counts[outcome] += 1
        self.counts["truncated"] += answer.finish_reason == "length"
        self.counts["prompt_tokens"] += usage.prompt_tokens
        self.counts["completion_tokens"] += usage.completion_tokens
        self.counts["cached_tokens"] += usage.cached_tokens


@dataclass
class _Shared:
    """A question in flight and how many wait for it."""

    question: str
    task: asyncio.Future[ParsedReply[Any]]
    waiting: int = 0

    def __post_init__(self) -> None:
        # A failure that nobody waited for any more is no news.
        self.task.add_done_callback(lambda task: task.cancelled() or task.exception())


CLIENT_COUNTS = (
    "calls",
    "ledger_hits",
    "shared",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "unreadable",
    "refused",
    "truncated",
)


def _settings(config: JudgeConfig) -> Mapping[str, Any]:
    """What decides about an answer besides the question, as the ledger's key holds it: it never changes form."""
    added = {"system": config.system, "thinking_tokens": config.thinking_tokens}
    if not any(added.values()) and "extra_body" not in config.extra_body:
        return config.extra_body
    return {"extra_body": config.extra_body, **{name: value for name, value in added.items() if value}}
