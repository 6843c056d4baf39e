"""One call to a judge until it is answered: in its turn, within the budget, and again where a failure may pass.

A failed call gives its place back while it waits for its next try, which takes a turn as any other call: so retries
keep to `requests_per_minute` too. The pause doubles from try to try, with some chance in it, or is what the server
asks for. A server that has too much to do slows all calls to it down (`limiter.py`): one that says so (429, 503), and
one at which calls time out or connections break off.

Where a question's last try fails, either the server is down, and the failure is raised, or it answers others, at the
least a tiny question: then AnswerFailed, which ends this question alone. It is no answer, so the next run asks again.
"""

import asyncio
import random
from collections.abc import Callable

from longreward.chat_model import ChatModel, ChatReply, ChatRequest, estimate_tokens
from longreward.errors import JudgeError, RequestFailed, TransientFailure
from longreward.judge.budget import Account
from longreward.judge.config import JudgeConfig
from longreward.judge.rate_limiter import Call, RateLimiter


class RetryingClient:
    """Calls one model; `counts` are of this caller."""

    def __init__(self, model: ChatModel, config: JudgeConfig, limiter: RateLimiter, account: Account) -> None:
        self.limiter = limiter
        self._model = model
        self._config = config
        self._account = account
        self._answered = 0
        self.counts = dict.fromkeys(RETRY_COUNTS, 0)

    async def call(self, question: ChatRequest, *, temperature: float, made: Callable[[], bool]) -> ChatReply | None:
        """The model's answer; None where it is `made()` elsewhere when it is the question's turn.

        Raises what the model raises, once it is no use to try again.
        """
        retries = self._config.max_retries
        failures = overloads = 0
        answered = self._answered
        while True:
            try:
                return await self._try(question, temperature, made)
            except JudgeError as error:
                if error.transient is None:
                    raise
                fault, passing = error, error.transient
            others = self._answered - answered  # since the try before
            answered = self._answered
            if passing.throttled and others:
                overloads += 1  # there is something to wait for
            else:
                failures += 1
            if failures > retries or overloads > PATIENCE * retries:
                raise self._last(fault, alive=retries > 0 and (others > 0 or await self._answers_at_all()))
            self.counts["retries"] += 1
            await asyncio.sleep(backoff_s(failures + overloads, passing))

    async def _try(self, question: ChatRequest, temperature: float, made: Callable[[], bool]) -> ChatReply | None:
        async with self.limiter.call(self._estimated(question)) as call:
            if made():
                return None
            try:
                async with self._account.call(question) as paid:
                    self.counts["requests"] += 1
                    answer = await self._model.complete(question, temperature=temperature)
                    paid.settle(answer.usage, answer.text)
            except JudgeError as error:
                if error.transient is not None:
                    await self._failed(call, error.transient)
                raise
            call.tokens = answer.usage.prompt_tokens + answer.usage.completion_tokens or call.tokens
            self._answered += 1
            self.limiter.answered(call)
            return answer

    async def _failed(self, call: Call, passing: TransientFailure) -> None:
        """Counts a failed request, and holds calls back where the server has too much to do."""
        self.counts["throttled"] += passing.throttled
        self.counts["timeouts"] += passing.timed_out
        self.counts["disconnects"] += passing.disconnected
        if passing.is_overload:
            self.limiter.throttled(call, passing.retry_after_s, timed_out=passing.timed_out)
        if passing.timed_out:
            # Many servers work on after the client has gone. So this call keeps its place for about as long as a reply
            # takes: given back at once, its retry would be one request more than the server may have at a time.
            await asyncio.sleep(self.limiter.reply_s or 0.0)

    async def _answers_at_all(self) -> bool:
        from longreward.judge.server_probe import PROBE_REQUEST

        try:
            return await self._try(PROBE_REQUEST, self._config.first_temperature, lambda: False) is not None
        except JudgeError:
            return False

    def _last(self, fault: JudgeError, *, alive: bool) -> JudgeError:
        if not alive:
            return fault
        self.counts["failed"] += 1
        return RequestFailed(f"{fault} (it answers other questions; the next run asks this one again)")

    def _estimated(self, question: ChatRequest) -> int:
        limit = question.max_tokens + self._config.thinking_tokens
        return estimate_tokens(question.system_prompt(self._config.system) + question.text) + limit


def backoff_s(failures: int, passing: TransientFailure) -> float:
    """Seconds until the next try after so many failed ones, from 1 on."""
    asked_for = passing.retry_after_s
    if passing.throttled and asked_for is not None:
        return 0.0  # the limiter holds all calls back for that long
    backoff = min(FIRST_PAUSE_S * 2.0 ** min(failures - 1, 30), LONGEST_PAUSE_S) * (1 - 0.25 * random.random())
    return max(backoff, asked_for or 0.0)


RETRY_COUNTS = ("failed", "requests", "retries", "throttled", "timeouts", "disconnects")
FIRST_PAUSE_S = 0.5  # these two are the `openai` library's
LONGEST_PAUSE_S = 8.0
PATIENCE = 10  # times max_retries: what a question may be turned away by a busy server that answers others
