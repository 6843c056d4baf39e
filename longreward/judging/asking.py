"""Asking one model until its answer can be read, with every exchange kept and no question asked twice."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from longreward.errors import AnswerFailed, AnswerRefused
from longreward.judging.budget import Account, Budget
from longreward.judging.calling import Caller
from longreward.judging.chat import Answer, ChatModel, Question, Usage
from longreward.judging.config import JudgeConfig
from longreward.judging.ledger import Exchange, Ledger, Outcome, question_id
from longreward.judging.limiter import Limiter
from longreward.judging.readings import Reading, exhausted, failed, reading_of, why_unreadable
from longreward.judging.thinking import said

T = TypeVar("T")


class Asker:
    """One model with its ways of being asked. The ledger is the caller's to close, the model its own."""

    def __init__(
        self,
        model: ChatModel,
        config: JudgeConfig,
        ledger: Ledger,
        limiter: Limiter,
        account: Account | None = None,
    ) -> None:
        self._config = config
        self._model = model
        self._ledger = ledger
        self.caller = Caller(model, config, limiter, account or Budget().account(config))
        self._settings = _settings(config)
        self._running: dict[str, _Shared] = {}
        self.counts = dict.fromkeys(FIGURES[:8], 0)

    @property
    def name(self) -> str:
        """The model's name."""
        return self._model.name

    async def ask(self, question: Question, read: Callable[[str], T | None]) -> Reading[T]:
        """The answer to `question` as `read` understands it; see `Judge.ask`."""
        identity = question_id(question, judge=self._model.name, revision=self._config.revision, extra=self._settings)
        shared = self._running.get(identity)
        if shared is not None:
            self.counts["shared"] += 1
            return replace(await self._wait_for(shared), calls=0)
        found = self._find(identity, read)
        if found.reading is not None:
            self.counts["ledger_hits"] += 1
            return found.reading
        shared = _Shared(identity, asyncio.ensure_future(self._pursue(identity, question, read, found)))
        self._running[identity] = shared
        return await self._wait_for(shared)

    async def close(self) -> None:
        """Ends calls that nobody waits for any more and lets go of the model's connections."""
        tasks = [shared.task for shared in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._model.close()

    async def _wait_for(self, shared: "_Shared") -> Reading[Any]:
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

    def _find(self, identity: str, read: Callable[[str], T | None]) -> "_Found[T]":
        """What the ledger knows: a reading where the question is settled, else the attempts made so far."""
        config = self._config
        made = {
            exchange.attempt: exchange
            for exchange in self._ledger.recorded(identity)
            if exchange.temperature == self._temperature(exchange.attempt)
        }
        for exchange in made.values():
            if exchange.outcome == "readable" and (value := read(self._said(exchange.answer))) is not None:
                return _Found(made, reading_of(made, value, exchange))
            if exchange.outcome == "refused":
                return _Found(made, reading_of(made, None, exchange))
        if all(attempt in made for attempt in range(1, config.max_attempts + 1)):
            return _Found(made, exhausted(made, calls=0))
        return _Found(made, None)

    async def _pursue(
        self, identity: str, question: Question, read: Callable[[str], T | None], found: "_Found[T]"
    ) -> Reading[T]:
        """Asks at every attempt not made yet until an answer can be read."""
        made, calls = dict(found.made), 0
        for attempt in range(1, self._config.max_attempts + 1):
            if attempt in made:
                continue
            try:
                exchange, value, called = await self._exchange(identity, question, read, attempt)
            except AnswerFailed as failure:
                return failed(made, str(failure), calls=calls, judge=self._model.name)
            made[attempt] = exchange
            calls += called
            if value is not None or exchange.outcome == "refused":
                return replace(reading_of(made, value, exchange), calls=calls)
        return exhausted(made, calls=calls)

    async def _exchange(
        self, identity: str, question: Question, read: Callable[[str], T | None], attempt: int
    ) -> tuple[Exchange, T | None, bool]:
        """One call, read and kept without a pause in between, so that no answer is lost to a cancellation.

        The last is False where another process had made it before this call could begin.
        """
        temperature = self._temperature(attempt)
        value: T | None = None
        outcome: Outcome
        reason: str | None
        self.counts["calls"] += 1
        try:
            answer = await self._call(identity, question, attempt)
        except AnswerRefused as refusal:
            answer, outcome, reason = Answer("", "content_filter"), "refused", str(refusal)
        else:
            if answer is None:
                return *self._made_meanwhile(identity, read, attempt), False
            value = read(self._said(answer))
            outcome = "readable" if value is not None else "unreadable"
            reason = (
                None
                if value is not None
                else why_unreadable(answer, thinking_tokens=self._config.thinking_tokens, limit=self._limit(question))
            )
        self._count(outcome, answer.usage)
        exchange = Exchange(
            question=identity,
            attempt=attempt,
            temperature=temperature,
            template=question.template,
            prompt_hash=question.prompt_hash,
            judge=self._model.name,
            revision=self._config.revision,
            answer=answer,
            outcome=outcome,
            reason=reason,
        )
        self._ledger.put(exchange)
        return exchange, value, True

    async def _call(self, identity: str, question: Question, attempt: int) -> Answer | None:
        """The model's answer; None where the ledger has one by now, from another process."""
        return await self.caller.call(
            question,
            temperature=self._temperature(attempt),
            made=lambda: self._recorded(identity, attempt) is not None,
        )

    def _recorded(self, identity: str, attempt: int) -> Exchange | None:
        temperature = self._temperature(attempt)
        made = self._ledger.recorded(identity)
        return next((each for each in made if (each.attempt, each.temperature) == (attempt, temperature)), None)

    def _made_meanwhile(
        self, identity: str, read: Callable[[str], T | None], attempt: int
    ) -> tuple[Exchange, T | None]:
        exchange = self._recorded(identity, attempt)
        assert exchange is not None, "nothing leaves the ledger"
        self.counts["calls"] -= 1
        self.counts["ledger_hits"] += 1
        return exchange, read(self._said(exchange.answer)) if exchange.outcome == "readable" else None

    def _limit(self, question: Question) -> int:
        return question.max_tokens + self._config.thinking_tokens

    def _said(self, answer: Answer) -> str:
        return said(answer, thinks=self._config.thinking_tokens > 0)

    def _temperature(self, attempt: int) -> float:
        return self._config.first_temperature if attempt == 1 else self._config.retry_temperature

    def _count(self, outcome: Outcome, usage: Usage) -> None:
        if outcome != "readable":
            self.counts[outcome] += 1
        self.counts["prompt_tokens"] += usage.prompt_tokens
        self.counts["completion_tokens"] += usage.completion_tokens
        self.counts["cached_tokens"] += usage.cached_tokens


@dataclass
class _Shared:
    """A question in flight and how many wait for it."""

    question: str
    task: asyncio.Future[Reading[Any]]
    waiting: int = 0

    def __post_init__(self) -> None:
        # A failure that nobody waited for any more is no news.
        self.task.add_done_callback(lambda task: task.cancelled() or task.exception())


@dataclass(frozen=True)
class _Found(Generic[T]):
    """The exchanges made so far by attempt, and the reading where they settle the question."""

    made: Mapping[int, Exchange]
    reading: Reading[T] | None


FIGURES = (
    "calls",
    "ledger_hits",
    "shared",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "unreadable",
    "refused",
    "failed",
    "retries",
    "throttled",
)


def _settings(config: JudgeConfig) -> Mapping[str, Any]:
    """What decides about an answer besides the question, as the ledger's key holds it: it never changes form."""
    added = {"system": config.system, "thinking_tokens": config.thinking_tokens}
    if not any(added.values()) and "extra_body" not in config.extra_body:
        return config.extra_body
    return {"extra_body": config.extra_body, **{name: value for name, value in added.items() if value}}
