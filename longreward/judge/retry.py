"""Send one request until it gets a reply: within the rate limit and the budget, repeated after transient failures.

A failed call releases its slot while it waits, and queues for a new one like any other call, so retries stay within
`requests_per_minute` too. The pause doubles from retry to retry, with jitter, or is what the server asks for. A server
that is overloaded slows all calls down (`rate_limiter.py`).

If the last retry of a request fails, there are two cases. Either the server is down, and the failure is raised. Or it
still replies to other requests, at least to a tiny probe: then RequestFailed ends this request alone.
"""

import asyncio
import logging
import random
from collections.abc import Callable

from longreward.chat_model import ChatModel, ChatReply, ChatRequest, estimate_tokens
from longreward.errors import JudgeError, RequestFailed, TransientFailure
from longreward.judge.budget import Account
from longreward.judge.config import JudgeConfig
from longreward.judge.rate_limiter import RateLimiter

log = logging.getLogger(__name__)

INITIAL_BACKOFF_S, MAX_BACKOFF_S = 0.5, 8.0  # as in the `openai` library
# A server that is busy, and replies to others, may turn a request away this many times `max_retries`.
OVERLOAD_PATIENCE = 10

# Short, and in the format of the ratings: a model that cannot do this cannot judge. The token limit is that of the
# shortest template.
PROBE_REQUEST = ChatRequest(
    template="probe",
    slots={},
    text="Which number is larger, 2 or 3? End with that number in double square brackets, as in [[5]].",
    prompt_hash="",
    max_tokens=512,
)

RETRY_COUNTS = ("failed", "requests", "retries", "throttled", "timeouts", "disconnects")


class RetryingClient:
    """Send requests to one model; `counts` are those of this client."""

    def __init__(self, model: ChatModel, config: JudgeConfig, limiter: RateLimiter, account: Account) -> None:
        self.limiter = limiter
        self.counts = dict.fromkeys(RETRY_COUNTS, 0)
        self._model = model
        self._config = config
        self._account = account
        self._replies = 0
        self._warned = False

    async def complete(
        self, request: ChatRequest, *, temperature: float, is_recorded: Callable[[], bool] = lambda: False
    ) -> ChatReply | None:
        """Return the model's reply; None where `is_recorded` says that another process has it by now.

        Raises the model's JudgeError once no retry is left, or at once where it is not transient, and what
        `is_recorded` raises.
        """
        max_retries = self._config.max_retries
        failures = overloads = 0
        previous_replies = self._replies
        while True:
            try:
                return await self._try(request, temperature, is_recorded)
            except JudgeError as error:
                if error.transient is None:
                    raise
                failure, transient = error, error.transient
            replies_to_others = self._replies - previous_replies  # since the previous try
            previous_replies = self._replies
            # Overload of a server that replies to others is expected with many requests in flight, so it counts less.
            if transient.throttled and replies_to_others:
                overloads += 1  # the server is busy, not down
            else:
                failures += 1
            if failures > max_retries or overloads > OVERLOAD_PATIENCE * max_retries:
                if max_retries > 0 and (replies_to_others or await self._replies_to_probe()):
                    self.counts["failed"] += 1
                    message = f"{failure} (it answers other questions; the next run asks this one again)"
                    raise RequestFailed(message) from None
                raise failure
            self.counts["retries"] += 1
            await asyncio.sleep(backoff_s(failures + overloads, transient))

    async def _try(self, request: ChatRequest, temperature: float, is_recorded: Callable[[], bool]) -> ChatReply | None:
        prompt_tokens = estimate_tokens(request.prompt_text(self._config.system))
        max_tokens = prompt_tokens + request.max_tokens + self._config.thinking_tokens
        async with self.limiter.call(max_tokens) as call:
            call.tokens = 0  # if nothing is sent
            if is_recorded():  # only now: the call may have waited for its slot
                return None
            call.tokens = max_tokens
            try:
                async with self._account.call(request) as budgeted:
                    self.counts["requests"] += 1
                    reply = await self._model.complete(request, temperature=temperature)
                    budgeted.report_usage(reply.usage, reply.text)
            except JudgeError as error:
                if (failure := error.transient) is not None:
                    self.counts["throttled"] += failure.throttled
                    self.counts["timeouts"] += failure.timed_out
                    self.counts["disconnects"] += failure.disconnected
                    if failure.is_overload:
                        self.limiter.record_overload(call, failure.retry_after_s, timed_out=failure.timed_out)
                        self._warn_of_overload(error)
                    if failure.timed_out:
                        # Many servers continue to work on a request whose client has gone. So the call keeps its slot
                        # for about the time of a reply; otherwise its retry would exceed what the server can handle.
                        await asyncio.sleep(self.limiter.latency_s or 0.0)
                raise
            call.tokens = reply.usage.prompt_tokens + reply.usage.completion_tokens or call.tokens
            self._replies += 1
            self.limiter.record_success(call)
            return reply

    def _warn_of_overload(self, error: JudgeError) -> None:
        """Warn at the first sign: while requests time out, a stage may show no progress for many minutes."""
        if self._warned or not self._config.max_retries:
            return
        if error.transient is not None and error.transient.throttled:
            return  # a provider that limits the rate is usual, and says when to come back
        self._warned = True
        limit = self.limiter.concurrency_limit
        log.warning("%s. It is sent again; requests at once: %d of %d", error, limit, self._config.max_concurrency)

    async def _replies_to_probe(self) -> bool:
        try:
            return await self._try(PROBE_REQUEST, self._config.first_temperature, lambda: False) is not None
        except JudgeError:
            return False


def backoff_s(failures: int, transient: TransientFailure) -> float:
    """Return the seconds until the next try after so many failed ones, from 1 on."""
    retry_after_s = transient.retry_after_s
    if transient.throttled and retry_after_s is not None:
        return 0.0  # the rate limiter pauses all calls for that long
    delay = min(INITIAL_BACKOFF_S * 2.0 ** min(failures - 1, 30), MAX_BACKOFF_S) * (1 - 0.25 * random.random())
    return max(delay, retry_after_s or 0.0)
