"""A hard limit on what a scoring may take: calls, tokens or money, over all of its tries.

    budget = Budget(BudgetConfig(calls=100))
    account = budget.account(JudgeConfig())
    async with account.call(question) as call:     # waits, or raises BudgetReached
        answer = await model.answer(question, …)
        call.settle(answer.usage, answer.text)

Before a call the most that it could take is put aside, and given back once the provider has said what it took: so all
calls in flight together stay within the limit. One that does not fit waits for those in flight; where it does not fit
even then, nothing is in flight any more, all answers are kept, and the scoring ends.
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


class BudgetConfig(Config):
    """The most that the judge may be asked for. Answers from the ledger are free; raised, it goes on."""

    money: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """In `prices.currency`; needs a price for each judge. None: no limit."""

    tokens: int | None = Field(default=None, ge=1)
    """Prompt and completion tokens together; None: no limit."""

    calls: int | None = Field(default=None, ge=1)
    """Calls that the judge answered, or may have; None: no limit."""

    @property
    def limits(self) -> bool:
        """Whether there is any."""
        return self.money is not None or self.tokens is not None or self.calls is not None


class Budget:
    """What may be spent and what has been; close it, or use it with `with`.

    `file` remembers over all tries what was spent (None: this process alone); `name` is the setting, for messages.
    Raises StateError where another process holds the file.
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
        self._purse = UsageStore(file)
        self._before = self._spent = self._purse.found
        self._held = Usage()
        self._at_risk = Usage()  # of that, what a killed process would have lost
        self._in_flight = 0
        self._reached: str | None = None
        self._unpriced: set[str] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._gate = asyncio.Lock()  # first come, first served: a large call is not overtaken
        self._settled = asyncio.Event()

    def account(self, config: JudgeConfig) -> "Account":
        """The way in which one judge spends. Raises ConfigError where its spending could not be limited as set."""
        model = config.model or config.kind
        price = self.prices.of(config.model, offline=config.kind == "offline")
        if price is None:
            self._unpriced.add(model)
            if self.limits.money is not None:
                raise ConfigError(
                    f"{self.name}.money is set, and what {model} costs is not known: add it to prices.models, as "
                    f'{{"{model}": {{"prompt": 5.0, "completion": 15.0}}}} (for a million tokens), or limit '
                    f"{self.name}.tokens instead"
                )
        account = Account(self, config, price)
        if account.room is None and (self.limits.money is not None or self.limits.tokens is not None):
            raise ConfigError(
                f"{self.name} limits tokens or money, and judge.extra_body takes the limit off the answers of {model}: "
                f"leave {account.length_field} out of it, or limit {self.name}.calls instead"
            )
        return account

    @property
    def spent(self) -> Usage:
        """Over all tries, without what is in flight."""
        return self._spent

    @property
    def money_known(self) -> bool:
        """Whether each judge that has an account has a price."""
        return not self._unpriced

    def metrics(self) -> dict[str, float]:
        """What was spent, as metrics: by this process, and over all tries where a budget is set."""
        now = self._spent - self._before
        figures: dict[str, float] = {"money": now.money} if self.money_known else {}
        if self.limits.limits:
            tries = self._spent
            figures |= {"budget/calls": tries.calls, "budget/tokens": tries.tokens}
            figures |= {"budget/money": tries.money} if self.money_known else {}
        return figures

    def told(self) -> str:
        """What was spent over all tries, for people."""
        spent = self._spent
        money = f", {spent.money:,.2f} {self.prices.currency}" if self.money_known else ""
        return f"{spent.calls:,} calls, {spent.tokens:,} tokens{money}"

    async def hold(self, most: Usage, at_risk: Usage) -> None:
        """Puts aside the most that a call could take; raises BudgetReached where that is more than is left.

        `at_risk` is what the next try has to count as spent where this process is killed.
        """
        if self.limits.limits:
            self._follow_loop()
            async with self._gate:
                while (short := self._short(most)) is not None:
                    if self._reached is None and self._in_flight == 0:
                        self._reached = short
                    if self._reached is not None:
                        raise BudgetExceeded(self._reached)
                    self._settled.clear()
                    await self._settled.wait()
                if self._reached is not None:
                    raise BudgetExceeded(self._reached)
        self._in_flight += 1
        self._change(most, at_risk)

    def _follow_loop(self) -> None:
        """Scorings may follow each other in event loops of their own, as calls from code that is not async do."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._gate, self._settled = loop, asyncio.Lock(), asyncio.Event()

    def release(self, most: Usage, at_risk: Usage, taken: Usage) -> None:
        """Gives back what was put aside, and counts what was taken."""
        self._in_flight -= 1
        self._change(Usage() - most, Usage() - at_risk, taken)
        self._settled.set()

    def close(self) -> None:
        """Lets another process spend from it."""
        self._purse.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _change(self, held: Usage, at_risk: Usage, spent: Usage | None = None) -> None:
        self._held += held
        self._at_risk += at_risk
        if self._in_flight == 0:
            self._held = self._at_risk = Usage()  # and no dust of floating points
        if spent is not None:
            self._spent += spent
        if self.limits.limits:
            self._purse.write(self._spent, self._at_risk)

    def _short(self, most: Usage) -> str | None:
        """Which limit a call of this size would break, in words; None: it fits."""
        after = self._spent + self._held + most
        for kind in ("money", "tokens", "calls"):
            limit = getattr(self.limits, kind)
            if limit is not None and getattr(after, kind) > limit:
                return self._words(kind, limit, getattr(most, kind))
        return None

    def _words(self, kind: str, limit: float, most: float) -> str:
        unit = self.prices.currency if kind == "money" else kind
        left = limit - getattr(self._spent, kind)
        next_call = f" (the next call may take {most:,g}, and {max(left, 0):,g} are left)" if kind != "calls" else ""
        return (
            f"{self.name}.{kind} of {limit:,g} {unit} is reached{next_call}: {self.told()} are spent, earlier tries "
            f"included. All answers are kept: raise {self.name}.{kind} and run it again, and it goes on from there"
        )


class Account:
    """One judge's spending from a budget."""

    def __init__(self, budget: Budget, config: JudgeConfig, price: Price | None) -> None:
        self._budget = budget
        self._config = config
        self._price = price
        self._batch = config.mode != "live"
        self._system = len(config.system.encode("utf-8", "replace"))  # bytes
        self._thinks = config.thinking_tokens
        self.length_field = config.length_field or config.preset.length_field

    @asynccontextmanager
    async def call(self, question: ChatRequest) -> AsyncIterator["Call"]:
        """Room for one call, tried once. A call that fails gives it back, unless the provider may charge for it."""
        most = self._most(question)
        at_risk = Usage() if self._batch else most  # the next try takes a batch in, and pays for its answers then
        await self._budget.hold(most, at_risk)
        call = Call(most)
        try:
            yield call
        except JudgeError as error:
            call.taken = call.taken or (most if error.may_be_billed else Usage())
            raise
        finally:  # cancelled, for one: nobody knows what it took
            self._budget.release(most, at_risk, self._taken(question, call) or most)

    @property
    def room(self) -> int | None:
        """Tokens that an answer may have besides the question's own limit; None: without limit."""
        field = self._config.extra_body.get(self.length_field, 0)
        return None if field is None or not isinstance(field, int) else self._thinks

    def _most(self, question: ChatRequest) -> Usage:
        """No tokenizer makes more tokens of a text than it has bytes."""
        prompt = len((question.text + question.system).encode("utf-8", "replace")) + self._system + FRAME
        set_to = self._config.extra_body.get(self.length_field)
        answers = self._config.extra_body.get("n")
        completion = set_to if isinstance(set_to, int) else question.max_tokens + self._thinks
        completion *= answers if isinstance(answers, int) else 1
        money = self._price.most(prompt, completion, batch=self._batch) if self._price else 0.0
        return Usage(1, prompt, completion, 0, money)

    def _taken(self, question: ChatRequest, call: "Call") -> Usage | None:
        if call.usage is None:
            return call.taken
        usage = call.usage
        if usage.prompt_tokens + usage.completion_tokens == 0:  # the server does not say
            answered = estimate_tokens(call.text) + self._thinks if call.text else call.most.completion_tokens
            usage = TokenUsage(estimate_tokens(question.system_prompt(self._config.system) + question.text), answered)
        money = 0.0
        if self._price is not None:
            money = self._price.cost(
                usage.prompt_tokens, usage.completion_tokens, cached=usage.cached_tokens, batch=self._batch
            )
        taken = Usage(1, usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, money)
        if taken.tokens > call.most.tokens:
            log.warning(
                "%s counted %d tokens for a call of at most %d (%s): the budget may be exceeded by the difference",
                self._config.model,
                taken.tokens,
                call.most.tokens,
                question.template,
            )
        return taken


@dataclass
class Call:
    """A call that may be made; settle it with what the answer took."""

    most: Usage
    usage: TokenUsage | None = None
    text: str = ""
    taken: Usage | None = None

    def settle(self, usage: TokenUsage, text: str = "") -> None:
        """What the provider counted; where that says nothing (zeros), about what the answer's text makes."""
        self.usage, self.text = usage, text


FRAME = 128  # tokens of a chat template around a question, on the high side
