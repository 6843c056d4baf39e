"""One limiter for all calls to a server: how many at once, how many and how many tokens in any minute.

How many at once adapts: a server that says "too many" (429, 503), lets calls time out or breaks connections off gets
half as many, once for all calls that were under way then, and each round of answered calls lets a few more in again, up
to `max_concurrency`. Where it says when to come back, no call starts before.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

MINUTE = 60.0
SMOOTHING = 0.1  # weight of the newest reply in the mean of how long replies take
ROUNDS_BACK = 32  # rounds of answered calls from 1 at once back to all


@dataclass
class Call:
    """A call that was let through; set `tokens` to what it took once that is known."""

    started: float
    tokens: int
    counted: int = 0  # as it stands in the sum of the minute
    replies_before: int = 0  # of all calls, when this one started


class Timer(Protocol):
    """What is to happen later."""

    def cancel(self) -> None: ...


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _later(seconds: float, what: Callable[[], None]) -> Timer:
    return asyncio.get_running_loop().call_later(seconds, what)


class RateLimiter:
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
        adaptive: bool = True,
        clock: Callable[[], float] = _loop_time,
        later: Callable[[float, Callable[[], None]], Timer] = _later,
    ) -> None:
        self._most = max_concurrency
        self._requests = requests_per_minute
        self._tokens = tokens_per_minute
        self._adaptive = adaptive
        self._clock = clock
        self._later = later
        self._room = float(max_concurrency)
        self._cut = -1.0  # when room was halved last
        self._closed_until = 0.0
        self._queue: deque[tuple[asyncio.Future[Call], int]] = deque()
        self._timer: Timer | None = None
        self._recent: deque[Call] = deque()
        self._spent = 0  # tokens of the recent calls
        self._running = 0
        self._changed = self._busy_s = self._active_s = 0.0
        self._reply_s: float | None = None
        self._replies = 0

    @property
    def room(self) -> int:
        """How many calls may be in flight at the moment."""
        return int(self._room)

    @property
    def mean_concurrency(self) -> float:
        """Calls in flight, on average over the time in which there were any."""
        return self._busy_s / self._active_s if self._active_s else 0.0

    @asynccontextmanager
    async def call(self, tokens: int) -> AsyncIterator[Call]:
        """Holds a place for one call that will take about `tokens`; correct `Call.tokens` before leaving."""
        call = await self._admitted(tokens)
        try:
            yield call
        finally:
            if call.counted:  # not left out of the minute yet
                self._spent += call.tokens - call.counted
                call.counted = call.tokens
            self._run(-1)
            self._admit()

    @property
    def reply_s(self) -> float | None:
        """Seconds that a reply took of late, waiting in the server's queue included; None before the first."""
        return self._reply_s

    def answered(self, call: Call | None = None) -> None:
        """A call went well: a little more room."""
        self._replies += 1
        if call is not None:
            took = self._clock() - call.started
            self._reply_s = took if self._reply_s is None else self._reply_s + SMOOTHING * (took - self._reply_s)
        self._room = min(self._most, self._room + max(1.0, self._most / ROUNDS_BACK) / self._room)

    def throttled(self, call: Call, retry_after_s: float | None, *, timed_out: bool = False) -> None:
        """The server had too much to do for `call`, and may have said when to come back.

        To be called while `call` holds its place, so that it counts as one of those that were too many.
        """
        now = self._clock()
        if retry_after_s is not None:
            self._closed_until = max(self._closed_until, now + retry_after_s)
        if self._adaptive and call.started > self._cut:  # those of before the last cut tell nothing new
            room = min(self._room, self._running) / 2
            if timed_out:
                # A server that gave so many replies while this call waited in vain can give no more in that time: with
                # more calls than that in flight, the next ones would time out too.
                room = min(room, self._replies - call.replies_before)
            self._room = max(1.0, room)
            self._cut = now

    async def _admitted(self, tokens: int) -> Call:
        place: asyncio.Future[Call] = asyncio.get_running_loop().create_future()
        self._queue.append((place, tokens))
        self._admit()
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # let through, and cancelled before it could start
                self._run(-1)
            self._admit()
            raise

    def _admit(self) -> None:
        """Lets through what may go now, and looks again when time alone lets the next one through."""
        while self._queue and self._running < int(self._room):
            place, tokens = self._queue[0]
            if not place.done() and (wait := self._wait(tokens)) > 0:
                if self._timer is None:
                    self._timer = self._later(min(wait, 1.0), self._look_again)
                return
            self._queue.popleft()
            if not place.done():
                self._start(place, tokens)
        if not self._queue and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_again(self) -> None:
        self._timer = None
        self._admit()

    def _start(self, place: "asyncio.Future[Call]", tokens: int) -> None:
        self._run(1)
        call = Call(self._clock(), tokens, replies_before=self._replies)
        if self._requests is not None or self._tokens is not None:
            call.counted = tokens
            self._recent.append(call)
            self._spent += tokens
        place.set_result(call)

    def _run(self, more: int) -> None:
        now = self._clock()
        if self._running:
            self._busy_s += self._running * (now - self._changed)
            self._active_s += now - self._changed
        self._changed = now
        self._running += more

    def _wait(self, tokens: int) -> float:
        """Seconds until something changes by time alone, or 0 where a call of `tokens` fits in now."""
        now = self._clock()
        if now < self._closed_until:
            return self._closed_until - now
        while self._recent and self._recent[0].started <= now - MINUTE:
            past = self._recent.popleft()
            self._spent -= past.counted
            past.counted = 0
        if not self._recent:
            return 0.0
        full = self._requests is not None and len(self._recent) >= self._requests
        if full or (self._tokens is not None and self._spent + tokens > self._tokens):
            return self._recent[0].started + MINUTE - now
        return 0.0
