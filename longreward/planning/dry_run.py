"""A judge that asks nobody: what the ledger knows it answers, and what it would have to ask it notes down.

Scoring itself runs with it, so that a plan counts exactly the questions that scoring will ask.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from longreward.errors import LongRewardError
from longreward.judge import ChatReply, ChatRequest, Judge, JudgeConfig, ParsedReply, TokenUsage
from longreward.judge.cached_client import CachedJudgeClient
from longreward.judge.ledger import Ledger
from longreward.judge.rate_limiter import RateLimiter
from longreward.judge.truncation import ReadTruncated
from longreward.records import Dimension

T = TypeVar("T")


@dataclass(frozen=True)
class RecordedRequest:
    """A question that came up, and whether the ledger has its answer."""

    question: ChatRequest
    answered: bool


class DryRunJudge(Judge):
    """Opened as `open_judge` opens a judge, but without keys and calls."""

    all_answered: bool
    """Whether the ledger knows all that came up since the last `take`."""
    _noted: list[RecordedRequest]
    _seen: set[int]

    @classmethod
    def open(cls, config: JudgeConfig, *, ledger: Path | Ledger | None) -> Self:
        """With the answers kept at `ledger`, where there is such a file, or in an open one, which it closes."""
        if not isinstance(ledger, Ledger):
            ledger = Ledger(ledger if ledger is not None and ledger.is_file() else None)
        store = ledger
        rehearsal = cls([(_asker(each, store), dimensions) for each, dimensions in config.judges()], store)
        rehearsal._noted, rehearsal._seen, rehearsal.all_answered = [], set(), True
        return rehearsal

    def take(self) -> list[RecordedRequest]:
        """The questions that came up since the last time; equal ones come once in all."""
        taken, self._noted = self._noted, []
        self.all_answered = True
        return taken

    def forget(self) -> None:
        """As if what came up since the last `take` had not."""
        self._seen -= {_key(each.question) for each in self.take()}

    async def query(
        self,
        request: ChatRequest,
        parse: Callable[[str], T | None],
        *,
        parse_truncated: ReadTruncated[T] | None = None,
    ) -> ParsedReply[T]:
        """What the ledger knows, else no value with NOT_ASKED for a reason; the request is noted."""
        try:
            reading = await super().query(request, parse, parse_truncated=parse_truncated)
        except _NotAsked:
            reading = ParsedReply(None, NOT_ASKED, "", 0, 0, TokenUsage(), self.name_for(request.template))
            self.all_answered = False
        key = _key(request)
        if key not in self._seen:
            self._seen.add(key)
            self._noted.append(RecordedRequest(request, reading.reason != NOT_ASKED))
        return reading


class NullModel:
    """A ChatModel of some name that answers nothing."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        raise _NotAsked

    async def close(self) -> None:
        pass


class _NotAsked(LongRewardError):
    pass


def _key(question: ChatRequest) -> int:
    return hash((question.template, question.text))  # eight bytes of it are enough to count by


def _asker(config: JudgeConfig, ledger: Ledger) -> CachedJudgeClient:
    return CachedJudgeClient(NullModel(name_of(config)), config, ledger, RateLimiter(max_concurrency=1000))


def name_of(config: JudgeConfig) -> str:
    """The judge's name in the ledger; needs no key."""
    if config.kind == "offline":
        from longreward.builtin.offline_judge.judge import OfflineJudge

        return OfflineJudge().name
    assert config.model is not None, "JudgeConfig holds every kind but offline to a model"
    return config.model


def dimension_of(template: str) -> Dimension:
    """The dimension that a template's questions belong to."""
    from longreward.judge.prompts import DIMENSION_TEMPLATES

    return next(dimension for dimension, templates in DIMENSION_TEMPLATES.items() if template in templates)


NOT_ASKED = "not asked yet"
