"""Limit the calls to one server: calls in flight, calls a minute and tokens a minute.

The number of calls in flight adapts to the server (additive increase, multiplicative decrease). If the server reports
overload (429, 503), lets calls time out or closes connections, the limit is halved, once for all calls that were in
flight then. Each round of successful calls raises it again, up to `max_concurrency`. If the server says when to come
back, no call starts before.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

MINUTE = 60.0
LATENCY_SMOOTHING = 0.1  # weight of the newest reply in the moving average of the latency
RECOVERY_ROUNDS = 32  # rounds of successful calls from 1 call in flight back to all
MAX_TIMER_S = 1.0  # the earliest free slot may change while a call waits


@dataclass
class AdmittedCall:
    """A call that may run now. Set `tokens` to the tokens that it used, once they are known; 0: nothing was sent."""

    started: float
    tokens: int
    counted_tokens: int = 0
    """Tokens that the current minute counts for this call."""
    replies_before: int = 0
    """Replies to all calls before this one started."""


class RateLimiter:
    """Admit calls in the order in which they arrive; a limit of None does not limit.

    In any 60 seconds the calls and the sum of their tokens stay within the limits. A call that exceeds the tokens of a
    whole minute runs alone, once no call lies within the last minute.
    """

    def __init__(
        self,
        *,
        max_concurrency: int,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        adaptive: bool = True,
    ) -> None:
        self._max_concurrency = max_concurrency
        self._requests_per_minute = requests_per_minute
        self._tokens_per_minute = tokens_per_minute
        self._adaptive = adaptive
        self._limit = float(max_concurrency)
        self._last_decrease = -1.0
        self._paused_until = 0.0
        self._queue: deque[tuple[asyncio.Future[AdmittedCall], int]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._recent: deque[AdmittedCall] = deque()  # of the last minute
        self._recent_tokens = 0
        self._in_flight = 0
        self._last_change = self._busy_s = self._active_s = 0.0
        self.latency_s: float | None = None
        """Moving average of the seconds until a reply, the server's queue included; None before the first."""
        self._replies = 0

    @property
    def concurrency_limit(self) -> int:
        """How many calls may be in flight at the moment."""
        return int(self._limit)

    @property
    def mean_concurrency(self) -> float:
        """Mean number of calls in flight, over the time in which there were any."""
        return self._busy_s / self._active_s if self._active_s else 0.0

    @asynccontextmanager
    async def call(self, tokens: int) -> AsyncIterator[AdmittedCall]:
        """Wait for admission, then hold a slot for a call of about `tokens`; set the real `AdmittedCall.tokens`."""
        admission: asyncio.Future[AdmittedCall] = asyncio.get_running_loop().create_future()
        self._queue.append((admission, tokens))
        self._admit()
        try:
            call = await admission
        except asyncio.CancelledError:
            if admission.done() and not admission.cancelled():  # admitted, and cancelled before it could start
                self._change_in_flight(-1)
            self._admit()
            raise
        try:
            yield call
        finally:
            if call.counted_tokens:  # 0 where the call is already older than a minute
                self._recent_tokens += call.tokens - call.counted_tokens
                call.counted_tokens = call.tokens
                if not call.tokens:
                    self._recent.remove(call)
            self._change_in_flight(-1)
            self._admit()

    def record_success(self, call: AdmittedCall | None = None) -> None:
        """Raise the concurrency limit a little."""
        self._replies += 1
        if call is not None:
            latency = _now() - call.started
            previous = latency if self.latency_s is None else self.latency_s
            self.latency_s = previous + LATENCY_SMOOTHING * (latency - previous)
        step = max(1.0, self._max_concurrency / RECOVERY_ROUNDS)
        self._limit = min(self._max_concurrency, self._limit + step / self._limit)

    def record_overload(self, call: AdmittedCall, retry_after_s: float | None, *, timed_out: bool = False) -> None:
        """Halve the concurrency limit, and pause where the server asks for it.

        Must be called while `call` still holds its slot, so that it counts as one of the calls that were too many.
        """
        now = _now()
        if retry_after_s is not None:
            self._paused_until = max(self._paused_until, now + retry_after_s)
        # Failures of calls that started before the last decrease carry no new information.
        if self._adaptive and call.started > self._last_decrease:
            limit = min(self._limit, self._in_flight) / 2
            if timed_out:
                # The server's throughput: it gave this many replies while this call timed out. With more calls in
                # flight than that, the next ones would time out too.
                limit = min(limit, self._replies - call.replies_before)
            self._limit = max(1.0, limit)
            self._last_decrease = now

    def _admit(self) -> None:
        """Admit the calls that fit now, and set a timer if the next one only has to wait for time to pass."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue and self._in_flight < self.concurrency_limit:
            admission, tokens = self._queue[0]
            if not admission.done() and (wait := self._seconds_until_free(tokens)) > 0:
                self._timer = asyncio.get_running_loop().call_later(min(wait, MAX_TIMER_S), self._admit)
                return
            self._queue.popleft()
            if admission.done():  # cancelled while it waited
                continue
            self._change_in_flight(1)
            call = AdmittedCall(_now(), tokens, replies_before=self._replies)
            if self._requests_per_minute is not None or self._tokens_per_minute is not None:
                call.counted_tokens = tokens
                self._recent.append(call)
                self._recent_tokens += tokens
            admission.set_result(call)

    def _change_in_flight(self, change: int) -> None:
        now = _now()
        if self._in_flight:
            self._busy_s += self._in_flight * (now - self._last_change)
            self._active_s += now - self._last_change
        self._last_change = now
        self._in_flight += change

    def _seconds_until_free(self, tokens: int) -> float:
        """Return the seconds until the pause or the oldest call of the minute ends; 0 if `tokens` fit in now."""
        now = _now()
        if now < self._paused_until:
            return self._paused_until - now
        while self._recent and self._recent[0].started <= now - MINUTE:
            expired = self._recent.popleft()
            self._recent_tokens -= expired.counted_tokens
            expired.counted_tokens = 0
        if not self._recent:
            return 0.0
        is_full = self._requests_per_minute is not None and len(self._recent) >= self._requests_per_minute
        if is_full or (self._tokens_per_minute is not None and self._recent_tokens + tokens > self._tokens_per_minute):
            return self._recent[0].started + MINUTE - now
        return 0.0


def _now() -> float:
    return asyncio.get_running_loop().time()
