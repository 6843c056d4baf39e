"""Asking a judge until its answer can be read, with every exchange kept and no question asked twice.

async with open_judge(JudgeConfig(), ledger=Path("ledger.sqlite")) as judge:
    reading = await judge.ask(question, read_rating)
    reading.value    # 7.0, or None with reading.reason
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from longreward.errors import AnswerRefused
from longreward.judging.chat import Answer, ChatModel, Question, Usage
from longreward.judging.config import JudgeConfig
from longreward.judging.ledger import Exchange, Ledger, Outcome, question_id
from longreward.judging.limiter import Limiter

T = TypeVar("T")


@dataclass(frozen=True)
class Reading(Generic[T]):
    """What a question came to. `value` is None exactly where `reason` says why; `text` is the judge's last answer.

    `attempts` and `usage` count the exchanges behind it, whenever they happened, so that a resumed run yields the same
    records; `calls` counts those made now (0: all from the ledger, or shared with an equal question).
    """

    value: T | None
    reason: str | None
    text: str
    attempts: int
    calls: int
    usage: Usage


def open_judge(config: JudgeConfig, *, ledger: Path | None) -> "Judge":
    """The judge that `config` describes, with its exchanges kept at `ledger` (None: in memory).

    Raises ConfigError where a key is missing, StateError where the ledger cannot be opened.
    """
    return Judge(open_model(config), config, Ledger(ledger))


class Judge:
    """A chat model that is asked through the ledger and the limiter; close it, or use it with `async with`."""

    def __init__(self, model: ChatModel, config: JudgeConfig | None = None, ledger: Ledger | None = None) -> None:
        self._config = config or JudgeConfig()
        self._model = model
        self._ledger = ledger or Ledger(None)
        self._limiter = Limiter(
            max_concurrency=self._config.max_concurrency,
            requests_per_minute=self._config.requests_per_minute,
            tokens_per_minute=self._config.tokens_per_minute,
        )
        self._running: dict[str, _Shared] = {}
        self._counts = dict.fromkeys(_FIGURES, 0)

    @property
    def name(self) -> str:
        """Which judge this is, for the record."""
        return self._model.name

    async def ask(self, question: Question, read: Callable[[str], T | None]) -> Reading[T]:
        """The answer to `question` as `read` understands it; `read` gives None where it cannot.

        Equal questions must be read alike: those in flight at once are asked once. Raises JudgeUnavailable,
        JudgeRefused or JudgeProtocolError where no answer can be had, StateError where it could not be kept.
        """
        identity = question_id(
            question, judge=self._model.name, revision=self._config.revision, extra=self._config.extra_body
        )
        shared = self._running.get(identity)
        if shared is not None:
            self._counts["shared"] += 1
            return replace(await self._wait_for(shared), calls=0)
        found = self._find(identity, read)
        if found.reading is not None:
            self._counts["ledger_hits"] += 1
            return found.reading
        shared = _Shared(identity, asyncio.ensure_future(self._pursue(identity, question, read, found)))
        self._running[identity] = shared
        return await self._wait_for(shared)

    def figures(self) -> dict[str, float]:
        """Counts since the judge was opened: calls, ledger hits, shared questions, tokens, unreadable, refused."""
        return {name: float(count) for name, count in self._counts.items()}

    async def close(self) -> None:
        """Ends calls that nobody waits for any more and lets go of connections and the ledger."""
        tasks = [shared.task for shared in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._model.close()
        self._ledger.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

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
            if exchange.outcome == "readable" and (value := read(exchange.answer.text)) is not None:
                return _Found(made, _reading(made, value, exchange))
            if exchange.outcome == "refused":
                return _Found(made, _reading(made, None, exchange))
        if all(attempt in made for attempt in range(1, config.max_attempts + 1)):
            return _Found(made, _exhausted(made, calls=0))
        return _Found(made, None)

    async def _pursue(
        self, identity: str, question: Question, read: Callable[[str], T | None], found: "_Found[T]"
    ) -> Reading[T]:
        """Asks at every attempt not made yet until an answer can be read."""
        made, calls = dict(found.made), 0
        for attempt in range(1, self._config.max_attempts + 1):
            if attempt in made:
                continue
            exchange, value = await self._exchange(identity, question, read, attempt)
            made[attempt] = exchange
            calls += 1
            if value is not None or exchange.outcome == "refused":
                return replace(_reading(made, value, exchange), calls=calls)
        return _exhausted(made, calls=calls)

    async def _exchange(
        self, identity: str, question: Question, read: Callable[[str], T | None], attempt: int
    ) -> tuple[Exchange, T | None]:
        """One call, read and kept without a pause in between, so that no answer is lost to a cancellation."""
        temperature = self._temperature(attempt)
        value: T | None = None
        outcome: Outcome
        reason: str | None
        self._counts["calls"] += 1
        try:
            answer = await self._call(question, temperature)
        except AnswerRefused as refusal:
            answer, outcome, reason = Answer("", "content_filter"), "refused", str(refusal)
        else:
            value = read(answer.text)
            outcome = "readable" if value is not None else "unreadable"
            reason = None if value is not None else _why_unreadable(answer)
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
        return exchange, value

    async def _call(self, question: Question, temperature: float) -> Answer:
        async with self._limiter.call(_estimated_tokens(question)) as call:
            answer = await self._model.answer(question, temperature=temperature)
            usage = answer.usage
            call.tokens = usage.prompt_tokens + usage.completion_tokens or call.tokens
            return answer

    def _temperature(self, attempt: int) -> float:
        return self._config.first_temperature if attempt == 1 else self._config.retry_temperature

    def _count(self, outcome: Outcome, usage: Usage) -> None:
        if outcome != "readable":
            self._counts[outcome] += 1
        self._counts["prompt_tokens"] += usage.prompt_tokens
        self._counts["completion_tokens"] += usage.completion_tokens
        self._counts["cached_tokens"] += usage.cached_tokens


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


_FIGURES = (
    "calls",
    "ledger_hits",
    "shared",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "unreadable",
    "refused",
)


def open_model(config: JudgeConfig) -> ChatModel:
    """The model that answers, without ledger and limits. Raises ConfigError where a key is missing."""
    if config.kind == "http":
        from longreward.judging.http import HttpJudge

        return HttpJudge(config)
    from longreward.judging.offline import OfflineJudge

    return OfflineJudge()


def _reading(made: Mapping[int, Exchange], value: T | None, last: Exchange) -> Reading[T]:
    return Reading(value, last.reason, last.answer.text, len(made), 0, _sum(made))


def _exhausted(made: Mapping[int, Exchange], *, calls: int) -> Reading[Any]:
    last = made[max(made)]
    reason = f"no readable answer in {len(made)} attempts; the last: {last.reason}"
    return Reading(None, reason, last.answer.text, len(made), calls, _sum(made))


def _sum(made: Mapping[int, Exchange]) -> Usage:
    usages = [exchange.answer.usage for exchange in made.values()]
    return Usage(
        sum(usage.prompt_tokens for usage in usages),
        sum(usage.completion_tokens for usage in usages),
        sum(usage.cached_tokens for usage in usages),
    )


def _why_unreadable(answer: Answer) -> str:
    if not answer.text.strip():
        return "the answer is empty" + (" (all tokens went into thinking)" if answer.finish_reason == "length" else "")
    end = answer.text.strip()[-80:].replace("\n", " ")
    cut = "was cut at the token limit" if answer.finish_reason == "length" else "holds no verdict in the asked form"
    return f"the answer {cut}: …{end}"


def _estimated_tokens(question: Question) -> int:
    """About 3.5 bytes a token, which holds for English (1 byte a letter) and Chinese (3 a character) alike."""
    return int(len(question.text.encode("utf-8", "replace")) / 3.5) + question.max_tokens
