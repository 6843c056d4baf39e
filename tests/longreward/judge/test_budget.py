"""A budget against a real server that counts what it is asked for."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from longreward.errors import BudgetExceeded, ConfigError, JudgeUnavailable, StateError
from longreward.judge import ChatRequest, Judge, JudgeConfig, ParsedReply, TokenUsage, open_judge
from longreward.judge.budget import Budget, BudgetConfig
from longreward.judge.usage import Price, PricesConfig, Usage, UsageStore
from longreward.reward.parsers import parse_rating

pytestmark = pytest.mark.usefixtures("no_keys")
PRICES = PricesConfig(models={"m": Price(prompt=1000.0, cached_prompt=500.0, completion=5000.0)})
Serve = Callable[..., AbstractContextManager[Any]]


def question(number: int) -> ChatRequest:
    return ChatRequest("helpfulness", {}, f"How good is answer {number}? {'x' * 400}", "hash", 50)


def judge_at(url: str, **settings: Any) -> JudgeConfig:
    return JudgeConfig.model_validate({"kind": "http", "base_url": url, "model": "m", "max_retries": 0} | settings)


class Counting:
    """Answers that took 100 tokens, 40 of them from the cache, and 10; counts questions over all tries.

    Holds the first calls back until `together` are there: so many are in flight at once, however busy the machine is.
    """

    def __init__(self, together: int = 1) -> None:
        self.asked: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._together, self._gathered = together, threading.Barrier(together)

    def __call__(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self._lock:
            self.asked[body["messages"][-1]["content"]] += 1
            first = sum(self.asked.values()) <= self._together
        if first:
            self._gathered.wait(30)
        choice = {"message": {"content": "[[7]]"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 40}}
        return 200, {"model": "m", "choices": [choice], "usage": usage}


async def ask_all(config: JudgeConfig, budget: Budget, ledger: Path | None, count: int) -> list[ParsedReply[float]]:
    """All at once; what was answered before the budget ended stays in the ledger."""
    async with open_judge(config, ledger=ledger, budget=budget) as judge:
        return await _gather(judge, count)


async def _gather(judge: Judge, count: int) -> list[ParsedReply[float]]:
    results = await asyncio.gather(
        *(judge.query(question(n), parse_rating) for n in range(count)), return_exceptions=True
    )
    errors = [each for each in results if isinstance(each, BaseException)]
    if errors:
        assert {type(each) for each in errors} == {BudgetExceeded}
        raise errors[0]
    return [each for each in results if isinstance(each, ParsedReply)]


@pytest.fixture
def counting(serve_chat: Serve) -> Iterator[tuple[Counting, JudgeConfig]]:
    answering = Counting()
    with serve_chat(answering) as server:
        yield answering, judge_at(server.url)


def test_a_budget_of_calls_is_spent_to_the_last_one_and_never_exceeded_with_32_in_flight(serve_chat: Serve) -> None:
    counting = Counting(together=32)
    with (
        serve_chat(counting) as server,
        Budget(BudgetConfig(calls=70)) as budget,
        pytest.raises(BudgetExceeded) as reached,
    ):
        asyncio.run(ask_all(judge_at(server.url), budget, None, 200))
    assert sum(counting.asked.values()) == 70
    assert "score.budget.calls of 70 calls is reached" in str(reached.value)
    assert "70 calls, 7,700 tokens" in str(reached.value)


# 300 calls of 110 tokens, or of 60 prompt tokens at 1000, 40 at 500 and 10 at 5000 a million: 0.13.
@pytest.mark.parametrize("limits", [BudgetConfig(tokens=33_000), BudgetConfig(money=39.0)])
def test_a_budget_of_tokens_or_money_is_never_exceeded_with_32_in_flight(
    serve_chat: Serve, limits: BudgetConfig
) -> None:
    counting = Counting(together=32)
    with serve_chat(counting) as server, Budget(limits, PRICES) as budget, pytest.raises(BudgetExceeded):
        asyncio.run(ask_all(judge_at(server.url), budget, None, 400))
    calls = sum(counting.asked.values())
    # About 600 tokens, or 0.80, are put aside for a call: the last five are not tried, since each might take as much.
    assert 290 <= calls <= 300
    assert budget.spent == Usage(calls, 100 * calls, 10 * calls, 40 * calls, pytest.approx(0.13 * calls))


def test_a_budget_that_was_reached_and_raised_goes_on_and_no_call_is_made_twice(
    counting: tuple[Counting, JudgeConfig], tmp_path: Path
) -> None:
    server, config = counting
    ledger, file = tmp_path / "ledger.sqlite", tmp_path / "budget.json"
    for calls in (20, 45):
        with Budget(BudgetConfig(calls=calls), file=file) as budget, pytest.raises(BudgetExceeded):
            asyncio.run(ask_all(config, budget, ledger, 60))
        assert sum(server.asked.values()) == calls
    with Budget(BudgetConfig(calls=60), file=file) as budget:
        readings = asyncio.run(ask_all(config, budget, ledger, 60))
    assert [reading.value for reading in readings] == [7.0] * 60
    assert set(server.asked.values()) == {1}
    assert budget.metrics() == {"budget/calls": 60.0, "budget/tokens": 6600.0}


def test_the_same_budget_stops_the_next_try_before_its_first_call(
    counting: tuple[Counting, JudgeConfig], tmp_path: Path
) -> None:
    server, config = counting
    for _ in range(2):
        with Budget(BudgetConfig(calls=5), file=tmp_path / "budget.json") as budget, pytest.raises(BudgetExceeded):
            asyncio.run(ask_all(config, budget, tmp_path / "ledger.sqlite", 10))
    assert sum(server.asked.values()) == 5


def test_what_a_killed_process_had_in_flight_counts_at_its_most(tmp_path: Path) -> None:
    file = tmp_path / "budget.json"
    purse = UsageStore(file)
    purse.write(Usage(3, 300, 30, 0, 0.5), Usage(2, 1000, 100, 0, 0.25))
    purse.close()  # as the kernel does
    with Budget(BudgetConfig(calls=10), file=file) as budget:
        assert budget.spent == Usage(5, 1300, 130, 0, 0.75)


def test_one_budget_is_spent_by_one_process_at_a_time(tmp_path: Path) -> None:
    limits = BudgetConfig(calls=10)
    with Budget(limits, file=tmp_path / "b.json"), pytest.raises(StateError, match="another process is spending"):
        Budget(limits, file=tmp_path / "b.json")
    Budget(limits, file=tmp_path / "b.json").close()


def test_a_damaged_record_of_spending_is_an_error_and_no_fresh_budget(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text('{"spent": 12')
    with pytest.raises(StateError, match=r"b\.json"):
        Budget(BudgetConfig(calls=10), file=tmp_path / "b.json")


def test_a_budget_in_money_is_refused_at_the_start_where_a_price_is_not_known() -> None:
    judge = {"dimensions": {"faithfulness": {"model": "dear"}}}
    with pytest.raises(ConfigError, match=r"score.budget.money is set.*dear.*prices.models"):
        open_judge(
            judge_at("http://127.0.0.1:9/v1", **judge), ledger=None, budget=Budget(BudgetConfig(money=1), PRICES)
        )


def test_without_a_price_money_is_unknown_and_not_nought(counting: tuple[Counting, JudgeConfig]) -> None:
    _, config = counting
    with Budget(BudgetConfig(tokens=10_000)) as budget:
        asyncio.run(ask_all(config, budget, None, 1))
    assert budget.metrics() == {"budget/calls": 1.0, "budget/tokens": 110.0}
    assert budget.summary() == "1 calls, 110 tokens"


def test_answers_without_a_limit_cannot_be_held_to_a_budget_of_tokens() -> None:
    config = judge_at("http://127.0.0.1:9/v1", extra_body={"max_tokens": None})
    for limits in (BudgetConfig(tokens=1000), BudgetConfig(money=10)):
        with pytest.raises(ConfigError, match=r"leave max_tokens out of it, or limit score\.budget\.calls"):
            Budget(limits, PRICES).account(config)
    Budget(BudgetConfig(calls=1000)).account(config)


def test_a_call_that_was_refused_outright_is_free_and_one_that_broke_off_may_not_be(serve_chat: Serve) -> None:
    with serve_chat(lambda _: (503, {"error": {"message": "busy"}})) as server:
        budget = Budget(BudgetConfig(tokens=10_000))
        with pytest.raises(JudgeUnavailable):
            asyncio.run(_ask_one(judge_at(server.url), budget))
        assert budget.spent == Usage()

    def slow(_: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        time.sleep(0.3)
        return 503, {}

    with serve_chat(slow) as server:
        with pytest.raises(JudgeUnavailable):
            asyncio.run(_ask_one(judge_at(server.url, timeout_s=0.1), budget))
        text = len(question(0).text)
        assert (budget.spent.calls, budget.spent.tokens) == (1, text + 128 + 50)


async def _ask_one(config: JudgeConfig, budget: Budget) -> None:
    async with open_judge(config, ledger=None, budget=budget) as judge:
        await judge.query(question(0), parse_rating)


def test_a_server_that_does_not_say_is_counted_by_its_words(serve_chat: Serve) -> None:
    choice = {"message": {"content": "It is fine. [[7]]"}, "finish_reason": "stop"}
    with serve_chat(lambda _: (200, {"choices": [choice]})) as server:
        budget = Budget(BudgetConfig(tokens=10_000))
        asyncio.run(_ask_one(judge_at(server.url), budget))
    assert budget.spent.prompt_tokens == len(question(0).text) * 2 // 7  # 3.5 bytes a token
    assert budget.spent.completion_tokens == 17 * 2 // 7


@pytest.mark.parametrize(
    ("price", "cost"),
    [
        (Price(prompt=2.0, completion=10.0), 2.0 * 0.3 + 10.0 * 0.1),
        (Price(prompt=2.0, cached_prompt=1.0, completion=10.0), 2.0 * 0.1 + 1.0 * 0.2 + 10.0 * 0.1),
    ],
)
def test_cached_tokens_have_a_price_of_their_own_where_one_is_given(price: Price, cost: float) -> None:
    assert price.cost(300_000, 100_000, cached=200_000) == pytest.approx(cost)
    assert price.cost(300_000, 100_000, cached=200_000, batch=True) == pytest.approx(cost / 2)


def test_the_record_of_spending_is_small_and_can_be_read_by_people(tmp_path: Path) -> None:
    with Budget(BudgetConfig(calls=10), file=tmp_path / "b.json") as budget:
        account = budget.account(JudgeConfig())

        async def spend() -> None:
            async with account.call(question(0)) as call:
                assert json.loads((tmp_path / "b.json").read_text())["reserved"]["calls"] == 1
                call.settle(TokenUsage(100, 10))

        asyncio.run(spend())
    kept = json.loads((tmp_path / "b.json").read_text())
    assert kept["spent"] == {
        "calls": 1, "prompt_tokens": 100, "completion_tokens": 10, "cached_tokens": 0, "money": 0.0
    }  # fmt: skip
    assert kept["reserved"]["calls"] == 0
    assert (tmp_path / "b.json").stat().st_size == 512


def most(config: JudgeConfig, budget: Budget, asked: ChatRequest) -> Usage:
    """What is put aside for a call while it is under way."""

    async def hold() -> Usage:
        async with budget.account(config).call(asked) as call:
            call.settle(TokenUsage(1, 1))
            return call.maximum

    return asyncio.run(hold())


def test_several_answers_to_one_request_are_put_aside_for() -> None:
    asked = question(3)
    prompt = len(asked.text) + 128
    url = "http://127.0.0.1:9/v1"
    limits = BudgetConfig(money=1000)
    one = most(judge_at(url), Budget(limits, PRICES), asked)
    assert one == Usage(1, prompt, 50, 0, pytest.approx(prompt * 1000 / 1e6 + 50 * 5000 / 1e6))
    four = most(judge_at(url, extra_body={"n": 4}), Budget(limits, PRICES), asked)
    assert four == Usage(1, prompt, 200, 0, pytest.approx(prompt * 1000 / 1e6 + 200 * 5000 / 1e6))
    strange = most(judge_at(url, extra_body={"n": "4"}), Budget(limits, PRICES), asked)
    assert strange.completion_tokens == 50
    limit = most(judge_at(url, extra_body={"max_tokens": 70, "n": 3}), Budget(limits, PRICES), asked)
    assert limit.completion_tokens == 210  # the set limit, and not the prompt's
    thinking = most(judge_at(url, thinking_tokens=30, extra_body={"n": 2}), Budget(limits, PRICES), asked)
    assert thinking.completion_tokens == 160


@pytest.mark.parametrize(("mode", "share"), [("live", 1.0), ("batch", 0.3), ("batch_files", 0.3)])
def test_a_batch_is_put_aside_for_and_charged_at_its_share_of_the_price(mode: str, share: float) -> None:
    prices = PricesConfig(models={"m": Price(prompt=1000.0, completion=5000.0, batch_share=0.3)})
    asked = question(3)
    budget = Budget(BudgetConfig(money=1000), prices)
    held = most(judge_at("http://127.0.0.1:9/v1", mode=mode), budget, asked)
    assert held.money == pytest.approx(((len(asked.text) + 128) * 1000 + 50 * 5000) / 1e6 * share)
    assert budget.spent.money == pytest.approx((1000 + 5000) / 1e6 * share)


def test_what_a_killed_process_had_in_batches_is_not_counted_as_lost(tmp_path: Path) -> None:
    """The next try takes the batch's answers in and pays for them then; a live call's answer is gone."""
    for mode, calls in (("batch", 0), ("live", 1)):
        with Budget(BudgetConfig(calls=9), file=tmp_path / mode) as budget:
            account = budget.account(judge_at("http://127.0.0.1:9/v1", mode=mode))

            async def hold(account: Any = account, mode: str = mode) -> int:
                async with account.call(question(0)) as call:
                    kept = json.loads((tmp_path / mode).read_text())
                    call.settle(TokenUsage(1, 1))
                    return int(kept["reserved"]["calls"])

            assert asyncio.run(hold()) == calls, mode


def test_once_a_budget_is_reached_no_smaller_call_slips_through() -> None:
    """Otherwise a run would go on for hours with the few questions that are small enough, and score hardly anything."""
    budget = Budget(BudgetConfig(tokens=100))
    large, small = Usage(1, 80, 0), Usage(1, 5, 0)

    async def spend() -> None:
        await budget.reserve(large, large)
        budget.release(large, large, large)
        with pytest.raises(BudgetExceeded, match=r"the next call may take 80, and 20 are left"):
            await budget.reserve(large, large)
        with pytest.raises(BudgetExceeded):
            await budget.reserve(small, small)

    asyncio.run(spend())
    assert budget.spent == large


def test_a_call_that_does_not_fit_waits_for_those_in_flight_and_takes_what_they_give_back() -> None:
    budget = Budget(BudgetConfig(tokens=100))
    order: list[str] = []

    async def one(name: str, most: int, taken: int, gate: asyncio.Event) -> None:
        await budget.reserve(Usage(1, most, 0), Usage())
        order.append(name)
        await gate.wait()
        budget.release(Usage(1, most, 0), Usage(), Usage(1, taken, 0))

    async def spend() -> None:
        first, later = asyncio.Event(), asyncio.Event()
        later.set()
        tasks = [asyncio.create_task(one("first", 70, 10, first))]
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(one("large", 60, 60, later)), asyncio.create_task(one("small", 20, 20, later))]
        for _ in range(5):
            await asyncio.sleep(0)
        assert order == ["first"]  # the small one would fit, and does not overtake the large one
        first.set()
        await asyncio.gather(*tasks)

    asyncio.run(spend())
    assert order == ["first", "large", "small"]
    assert budget.spent == Usage(3, 90, 0)
    assert budget._reserved == Usage()


@pytest.mark.parametrize("kind", ["calls", "tokens", "money"])
def test_a_budget_may_be_spent_to_the_last_and_not_beyond(kind: str) -> None:
    call = Usage(1, 6, 4, 0, 2.5)
    budget = Budget(BudgetConfig.model_validate({kind: {"calls": 3, "tokens": 30, "money": 7.5}[kind]}), PRICES)

    async def spend() -> int:
        for number in range(5):
            try:
                await budget.reserve(call, call)
            except BudgetExceeded:
                return number
            budget.release(call, call, call)
        return 5

    assert asyncio.run(spend()) == 3


def test_the_figures_are_those_of_this_process_and_of_all_tries(tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    for count in (2, 3):
        with Budget(BudgetConfig(calls=10), PRICES, file=file) as budget:
            account = budget.account(judge_at("http://127.0.0.1:9/v1"))

            async def spend(account: Any = account, count: int = count) -> None:
                for _ in range(count):
                    async with account.call(question(0)) as call:
                        call.settle(TokenUsage(100, 10, 40))

            asyncio.run(spend())
    assert budget.metrics() == {
        "money": pytest.approx(3 * 0.13),
        "budget/calls": 5.0,
        "budget/tokens": 550.0,
        "budget/money": pytest.approx(5 * 0.13),
    }


def test_a_call_that_took_more_than_was_thought_possible_is_said_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    budget = Budget(BudgetConfig(tokens=100_000))
    account = budget.account(judge_at("http://127.0.0.1:9/v1"))

    async def spend() -> None:
        async with account.call(question(0)) as call:
            call.settle(TokenUsage(500, 3000))

    asyncio.run(spend())
    assert "counted 3500 tokens for a call of at most" in caplog.text
    assert budget.spent.tokens == 3500


def test_a_cancelled_call_counts_at_its_most() -> None:
    budget = Budget(BudgetConfig(tokens=100_000))
    account = budget.account(judge_at("http://127.0.0.1:9/v1"))

    async def spend() -> None:
        async def call() -> None:
            async with account.call(question(0)):
                await asyncio.Event().wait()

        task = asyncio.create_task(call())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(spend())
    assert budget.spent == Usage(1, len(question(0).text) + 128, 50)


@pytest.mark.parametrize(("text", "completion"), [("It is fine. [[7]]", 17 * 2 // 7 + 30), ("", 50 + 30)])
def test_without_counts_thoughts_are_in_full_and_an_answer_without_text_at_its_most(text: str, completion: int) -> None:
    """An empty answer may be one that was thought through to the limit."""
    budget = Budget(BudgetConfig(tokens=10_000))
    account = budget.account(judge_at("http://127.0.0.1:9/v1", thinking_tokens=30))

    async def spend() -> None:
        async with account.call(question(0)) as call:
            call.settle(TokenUsage(), text)

    asyncio.run(spend())
    assert budget.spent.completion_tokens == completion


def test_what_was_put_aside_and_given_back_leaves_no_dust_of_floating_points() -> None:
    """A budget that the last call fits in exactly must not be short of 1e-16."""
    budget = Budget(BudgetConfig(money=0.7), PRICES)
    amounts = [0.1, 0.2, 0.3]

    async def spend() -> None:
        for money in amounts:
            await budget.reserve(Usage(money=money), Usage())
        for money in amounts:
            budget.release(Usage(money=money), Usage(), Usage())
        await budget.reserve(Usage(money=0.7), Usage())

    assert 0.1 + 0.2 + 0.3 - 0.1 - 0.2 - 0.3 + 0.7 > 0.7
    asyncio.run(spend())
