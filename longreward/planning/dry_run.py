"""A judge that makes no calls: it replies from the ledger and records the requests that are not there.

A plan runs scoring itself with this judge, so that it counts exactly the requests that scoring will make.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from longreward.errors import LongRewardError
from longreward.judge import ChatReply, ChatRequest, Judge, JudgeConfig, ParsedReply, TokenUsage
from longreward.judge.cached_client import CachedJudgeClient
from longreward.judge.ledger import Ledger
from longreward.judge.rate_limiter import RateLimiter
from longreward.judge.truncation import TruncatedParser

T = TypeVar("T")

NOT_CACHED = "not requested yet"
NO_LIMIT = 1000  # concurrent requests; none of them is sent


class RecordedRequest(NamedTuple):
    """A request that scoring would make, and the position of its judge in `JudgeConfig.judges()`."""

    request: ChatRequest
    judge: int
    is_cached: bool
    """Whether the ledger has the reply."""


class DryRunJudge(Judge):
    """A Judge without API keys and calls.

    `ledger` is a file, which may be missing, or an open ledger, which the judge closes.
    """

    def __init__(self, config: JudgeConfig, *, ledger: Path | Ledger | None) -> None:
        store = ledger if isinstance(ledger, Ledger) else Ledger(ledger if ledger and ledger.is_file() else None)
        limiter = RateLimiter(max_concurrency=NO_LIMIT)
        clients = [
            CachedJudgeClient(NullModel(judge_name(judge)), judge, store, limiter) for judge, _ in config.judges()
        ]
        super().__init__(clients, config.judges_by_template(), store, reducer=config.reducer)
        self.all_cached = True
        """Whether the ledger had the replies to all requests since the last `pop_requests`."""
        self._requests: list[RecordedRequest] = []
        self._request_hashes: set[int] = set()

    def pop_requests(self) -> list[RecordedRequest]:
        """Return each distinct request since the last call."""
        requests, self._requests = self._requests, []
        self.all_cached = True
        return requests

    def discard_requests(self) -> None:
        """Forget the requests since the last `pop_requests`, as if they had not been made."""
        self._request_hashes -= {_request_hash(recorded) for recorded in self.pop_requests()}

    async def _query(
        self,
        client: CachedJudgeClient,
        request: ChatRequest,
        parse: Callable[[str], T | None],
        parse_truncated: TruncatedParser[T] | None,
    ) -> ParsedReply[T]:
        """Record the request; return the reply from the ledger, else a reply without value, with reason NOT_CACHED."""
        try:
            reply = await super()._query(client, request, parse, parse_truncated)
        except _CallAttempted:
            reply = ParsedReply(None, NOT_CACHED, "", 0, 0, TokenUsage(), client.name)
            self.all_cached = False
        # Scoring sends equal requests to one judge only once, so a plan must not count them twice.
        recorded = RecordedRequest(request, self._clients.index(client), is_cached=reply.reason != NOT_CACHED)
        key = _request_hash(recorded)
        if key not in self._request_hashes:
            self._request_hashes.add(key)
            self._requests.append(recorded)
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


def _request_hash(recorded: RecordedRequest) -> int:
    """Return a hash to count distinct requests by; storing their texts would take gigabytes."""
    return hash((recorded.judge, recorded.request.template, recorded.request.text))
