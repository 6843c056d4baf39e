"""One limiter for all calls of a process: how many at once, how many and how many tokens in any minute."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

MINUTE = 60.0


@dataclass
class Call:
    """A call that was let through; set `tokens` to what it took once that is known."""

    started: float
    tokens: int


class Limiter:
    """Lets calls through in the order in which they came; `None` sets no limit.

    Over any 60 seconds the calls, and the sum of their tokens, stay within the limits. A call that is larger than the
    whole minute's tokens goes alone, once the minute before it is empty.
    """

    def __init__(
        self,
        *,
        max_concurrency: int,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._requests = requests_per_minute
        self._tokens = tokens_per_minute
        self._clock = clock
        self._sleep = sleep
        self._places = asyncio.Semaphore(max_concurrency)
        self._gate = asyncio.Lock()  # one waits for the minute at a time, so that a large call is not overtaken
        self._recent: deque[Call] = deque()

    @asynccontextmanager
    async def call(self, tokens: int) -> AsyncIterator[Call]:
        """Holds a place for one call that will take about `tokens`; correct `Call.tokens` before leaving."""
        async with self._places:
            if self._requests is None and self._tokens is None:
                yield Call(0.0, tokens)
                return
            async with self._gate:
                while (wait := self._wait(tokens)) > 0:
                    await self._sleep(min(wait, 1.0))  # looks again: a finished call may have given tokens back
                call = Call(self._clock(), tokens)
                self._recent.append(call)
            yield call

    def _wait(self, tokens: int) -> float:
        """Seconds until the oldest call leaves the minute, or 0 where one of `tokens` fits in now."""
        now = self._clock()
        while self._recent and self._recent[0].started <= now - MINUTE:
            self._recent.popleft()
        if not self._recent:
            return 0.0
        full = self._requests is not None and len(self._recent) >= self._requests
        spent = sum(call.tokens for call in self._recent) if self._tokens is not None else 0
        if full or (self._tokens is not None and spent + tokens > self._tokens):
            return self._recent[0].started + MINUTE - now
        return 0.0
