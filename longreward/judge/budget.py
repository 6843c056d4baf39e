"""Enforce a hard limit on the calls, tokens or money of one scoring, over all of its runs.

    budget = Budget(BudgetConfig(calls=100))
    account = budget.account(JudgeConfig())
    async with account.call(request) as call:     # waits, or raises BudgetExceeded
        reply = await model.complete(request, …)
        call.report_usage(reply.usage, reply.text)

Each call first reserves the maximum that it could use, and releases the difference once the provider has reported the
real usage. So all calls in flight together stay within the limit. A call that does not fit waits for calls in flight;
if it does not fit even when none is left, BudgetExceeded ends the scoring, and all replies are already recorded.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import Field

from longreward.chat_model import ChatRequest, TokenUsage, estimate_tokens
from longreward.config import Config
from longreward.errors import BudgetExceeded, ConfigError, JudgeError
from longreward.judge.config import JudgeConfig
from longreward.judge.usage import Price, PricesConfig, Usage, UsageStore

log = logging.getLogger(__name__)

MAX_TEMPLATE_TOKENS = 128  # that a chat template adds to a request, on the high side


class BudgetConfig(Config):
    """The most that the judge may use. Replies from the ledger are free; a higher budget resumes the run."""

    money: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """In `prices.currency`; needs a price for each judge. None: no limit."""

    tokens: int | None = Field(default=None, ge=1)
    """Prompt and completion tokens together; None: no limit."""

    calls: int | None = Field(default=None, ge=1)
    """Calls that the judge answered, or may have; None: no limit."""

    @property
    def is_limited(self) -> bool:
        """Whether any limit is set."""
        return self.money is not None or self.tokens is not None or self.calls is not None


class Budget:
    """What may be spent and what has been; close it, or use it with `with`.

    `file` stores the spent amounts over all runs (None: only this process counts); `name` is the section of
    params.yaml, for messages. Raises StateError where another process holds the file.
    """

    def __init__(
        self,
        limits: BudgetConfig | None = None,
        prices: PricesConfig | None = None,
        *,
        file: Path | None = None,
        name: str = "score.budget",
    ) -> None:
        self.limits = limits or BudgetConfig()
        self.prices = prices or PricesConfig()
        self.name = name
        self._store = UsageStore(file)
        self._spent = self._store.previous
        self._reserved = Usage()
        self._at_risk = Usage()  # the part of the reservations that would count as spent if the process were killed
        self._in_flight = 0
        self._exceeded: str | None = None
        self._unpriced_models: set[str] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reservation_lock = asyncio.Lock()  # first come, first served: small calls do not overtake a large one
        self._released = asyncio.Event()

    def account(self, config: JudgeConfig) -> "Account":
        """Open the account of one judge. Raises ConfigError where its spending cannot be limited as configured."""
        model = config.display_name
        limits, length_field = self.limits, config.sent_length_field
        price = self.prices.price_for(config)
        if price is None:
            self._unpriced_models.add(model)
            if limits.money is not None:
                raise ConfigError(
                    f"{self.name}.money is set, and the price of {model} is unknown: add it to prices.models, as "
                    f'{{"{model}": {{"prompt": 5.0, "completion": 15.0}}}} (for a million tokens), or limit '
                    f"{self.name}.tokens instead"
                )
        is_unbounded = not isinstance(config.extra_body.get(length_field, 0), int)
        if is_unbounded and (limits.money is not None or limits.tokens is not None):
            raise ConfigError(
                f"{self.name} limits tokens or money, and judge.extra_body removes the token limit of replies from "
                f"{model}: leave {length_field} out of it, or limit {self.name}.calls instead"
            )
        return Account(self, config, price)

    @property
    def spent(self) -> Usage:
        """Usage over all runs, without calls in flight."""
        return self._spent

    @property
    def is_priced(self) -> bool:
        """Whether the price of each judge with an account is known."""
        return not self._unpriced_models

    def metrics(self) -> dict[str, float]:
        """Return the money spent by this process and, where a budget is set, the usage over all runs."""
        metrics: dict[str, float] = {"money": (self._spent - self._store.previous).money} if self.is_priced else {}
        if self.limits.is_limited:
            metrics |= {"budget/calls": self._spent.calls, "budget/tokens": self._spent.tokens}
            metrics |= {"budget/money": self._spent.money} if self.is_priced else {}
        return metrics

    def summary(self) -> str:
        """Describe the usage over all runs."""
        spent = self._spent
        money = f", {spent.money:,.2f} {self.prices.currency}" if self.is_priced else ""
        return f"{spent.calls:,} calls, {spent.tokens:,} tokens{money}"

    async def reserve(self, maximum: Usage, at_risk: Usage) -> None:
        """Reserve the maximum that a call could use, waiting for other calls if necessary.

        `at_risk` is the part that the next run has to count as spent if this process is killed. Raises BudgetExceeded
        where the maximum does not fit even without other calls in flight.
        """
        if self.limits.is_limited:
            # Synchronous callers, such as a reward function for TRL, run each scoring in an event loop of its own.
            loop = asyncio.get_running_loop()
            if loop is not self._loop:
                self._loop, self._reservation_lock, self._released = loop, asyncio.Lock(), asyncio.Event()
            async with self._reservation_lock:
                # Once a limit is exceeded it stays so, or small calls would continue while large ones fail.
                while self._exceeded is None and (exceeded := self._exceeded_limit(maximum)) is not None:
                    if self._in_flight == 0:
                        self._exceeded = exceeded
                    else:
                        self._released.clear()
                        await self._released.wait()
                if self._exceeded is not None:
                    raise BudgetExceeded(self._exceeded)
        self._in_flight += 1
        # The file is written before the call is sent: a killed process must not lose what it may have spent.
        self._update(maximum, at_risk)

    def release(self, maximum: Usage, at_risk: Usage, used: Usage) -> None:
        """Release a reservation and count what was used."""
        self._in_flight -= 1
        self._spent += used
        self._update(Usage() - maximum, Usage() - at_risk)
        self._released.set()

    def close(self) -> None:
        """Let another process spend from the budget."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _update(self, reserved: Usage, at_risk: Usage) -> None:
        if not self.limits.is_limited:
            return
        self._reserved += reserved
        self._at_risk += at_risk
        if self._in_flight == 0:
            self._reserved = self._at_risk = Usage()  # drops rounding errors of the sums
        self._store.write(self._spent, self._at_risk)

    def _exceeded_limit(self, maximum: Usage) -> str | None:
        """Return a message about the limit that a call of this size would exceed; None: it fits."""
        total = self._spent + self._reserved + maximum
        for kind in ("money", "tokens", "calls"):
            limit = getattr(self.limits, kind)
            if limit is None or getattr(total, kind) <= limit:
                continue
            unit = self.prices.currency if kind == "money" else kind
            remaining = max(limit - getattr(self._spent, kind), 0)
            needed = getattr(maximum, kind)
            next_call = f" (the next call may take {needed:,g}, and {remaining:,g} are left)" if kind != "calls" else ""
            return (
                f"{self.name}.{kind} of {limit:,g} {unit} is reached{next_call}: {self.summary()} are spent, earlier "
                f"runs included. All replies are recorded: raise {self.name}.{kind} and run it again to resume"
            )
        return None


class Account:
    """One judge's spending from a budget."""

    def __init__(self, budget: Budget, config: JudgeConfig, price: Price | None) -> None:
        self._budget = budget
        self._config = config
        self._price = price or Price(prompt=0.0)
        self._batch = config.mode != "live"

    @asynccontextmanager
    async def call(self, request: ChatRequest) -> AsyncIterator["BudgetedCall"]:
        """Reserve budget for one call. A failed call releases it, unless the provider may charge for the failure."""
        maximum = self._max_usage(request)
        # A batch is collected, and its replies paid for, by the next run; a live call may be lost with the process.
        at_risk = Usage() if self._batch else maximum
        await self._budget.reserve(maximum, at_risk)
        call = BudgetedCall(self, request, maximum)
        try:
            yield call
        except JudgeError as error:
            if call.used is None and not error.may_be_billed:
                call.used = Usage()
            raise
        finally:
            # After a cancellation nobody knows what the call used: the maximum counts.
            self._budget.release(maximum, at_risk, maximum if call.used is None else call.used)

    def usage(self, request: ChatRequest, maximum: Usage, reported: TokenUsage, text: str) -> Usage:
        """Return what a call used; estimated from the texts where the provider reported zeros."""
        if reported.prompt_tokens + reported.completion_tokens == 0:
            completion = maximum.completion_tokens  # an empty reply may consist of reasoning up to the limit
            if text:
                completion = estimate_tokens(text) + self._config.thinking_tokens
            prompt = estimate_tokens(request.prompt_text(self._config.system))
            reported = TokenUsage(prompt, completion)
        prompt, completion, cached = reported.prompt_tokens, reported.completion_tokens, reported.cached_tokens
        written = reported.cache_write_tokens
        money = self._price.cost(prompt, completion, cached=cached, written=written, batch=self._batch)
        if prompt + completion > maximum.tokens:
            log.warning(
                "%s counted %d tokens for a call of at most %d (%s): the budget may be exceeded by the difference",
                self._config.model,
                prompt + completion,
                maximum.tokens,
                request.template,
            )
        return Usage(1, prompt, completion, cached, money)

    def _max_usage(self, request: ChatRequest) -> Usage:
        # No tokenizer makes more tokens of a text than it has bytes.
        text = request.prompt_text(self._config.system)
        prompt = len(text.encode("utf-8", "replace")) + MAX_TEMPLATE_TOKENS * (1 + len(request.turns))
        extra = self._config.extra_body
        length, choices = extra.get(self._config.sent_length_field), extra.get("n")
        completion = length if isinstance(length, int) else request.max_tokens + self._config.thinking_tokens
        completion *= choices if isinstance(choices, int) else 1
        # Tokens from the provider's cache are usually cheaper, but nothing in the settings requires that.
        money = max(
            self._price.cost(prompt, completion, cached=cached, written=written, batch=self._batch)
            for cached, written in ((0, 0), (prompt, 0), (0, prompt))
        )
        return Usage(1, prompt, completion, 0, money)


@dataclass
class BudgetedCall:
    """A call whose maximum is reserved."""

    account: Account
    request: ChatRequest
    maximum: Usage
    used: Usage | None = None
    """What the call counts as; None: the maximum, unless it fails without a bill."""

    def report_usage(self, usage: TokenUsage, text: str = "") -> None:
        """Set what the provider reported. Zeros mean that it reports nothing: the text of the reply is estimated."""
        self.used = self.account.usage(self.request, self.maximum, usage, text)
