"""A judge that makes no calls: it replies from the ledger and records the requests that are not there.

A plan runs scoring itself with this judge, so that it counts exactly the requests that scoring will make.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from longreward.errors import LongRewardError
from longreward.judge import ChatReply, ChatRequest, Judge, JudgeConfig, ParsedReply, TokenUsage
from longreward.judge.cached_client import CachedJudgeClient
from longreward.judge.ledger import Ledger
from longreward.judge.rate_limiter import RateLimiter
from longreward.judge.truncation import TruncatedParser

T = TypeVar("T")

NOT_CACHED = "not requested yet"
NO_LIMIT = 1000  # concurrent requests; none of them is sent


class DryRunJudge(Judge):
    """A Judge without API keys and calls.

    `ledger` is a file, which may be missing, or an open ledger, which the judge closes.
    """

    def __init__(self, config: JudgeConfig, *, ledger: Path | Ledger | None) -> None:
        store = ledger if isinstance(ledger, Ledger) else Ledger(ledger if ledger and ledger.is_file() else None)
        limiter = RateLimiter(max_concurrency=NO_LIMIT)
        clients = [
            (CachedJudgeClient(NullModel(judge_name(judge)), judge, store, limiter), dimensions)
            for judge, dimensions in config.judges()
        ]
        super().__init__(clients, store)
        self.all_cached = True
        """Whether the ledger had the replies to all requests since the last `pop_requests`."""
        self._requests: list[tuple[ChatRequest, bool]] = []
        self._request_hashes: set[int] = set()

    def pop_requests(self) -> list[tuple[ChatRequest, bool]]:
        """Return each distinct request since the last call, and whether the ledger has the reply."""
        requests, self._requests = self._requests, []
        self.all_cached = True
        return requests

    def discard_requests(self) -> None:
        """Forget the requests since the last `pop_requests`, as if they had not been made."""
        self._request_hashes -= {_request_hash(request) for request, _ in self.pop_requests()}

    async def query(
        self,
        request: ChatRequest,
        parse: Callable[[str], T | None],
        *,
        parse_truncated: TruncatedParser[T] | None = None,
    ) -> ParsedReply[T]:
        """Record the request; return the reply from the ledger, else a reply without value, with reason NOT_CACHED."""
        try:
            reply = await super().query(request, parse, parse_truncated=parse_truncated)
        except _CallAttempted:
            reply = ParsedReply(None, NOT_CACHED, "", 0, 0, TokenUsage(), self.name_for(request.template))
            self.all_cached = False
        # Scoring sends equal requests only once, so a plan must not count them twice.
        key = _request_hash(request)
        if key not in self._request_hashes:
            self._request_hashes.add(key)
            self._requests.append((request, reply.reason != NOT_CACHED))
        return reply


class NullModel:
    """A ChatModel that never replies."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        raise _CallAttempted

    async def close(self) -> None:
        pass


class _CallAttempted(LongRewardError):
    """Not a JudgeError, which the judge client would record as a failed call."""


def judge_name(config: JudgeConfig) -> str:
    """Return the judge's name in the ledger, without reading an API key."""
    if config.kind == "offline":
        from longreward.builtin.offline_judge.judge import OfflineJudge

        return OfflineJudge().name
    assert config.model is not None  # validated by JudgeConfig
    return config.model


def _request_hash(request: ChatRequest) -> int:
    """Return a hash to count distinct requests by; storing their texts would take gigabytes."""
    return hash((request.template, request.text))
