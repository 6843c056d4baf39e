"""Budgets, against a real server that counts its requests."""

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


def request_number(number: int) -> ChatRequest:
    return ChatRequest("helpfulness", {}, f"How good is answer {number}? {'x' * 400}", "hash", 50)


def judge_config(url: str, **settings: Any) -> JudgeConfig:
    return JudgeConfig.model_validate({"kind": "http", "base_url": url, "model": "m", "max_retries": 0} | settings)


class CountingServer:
    """Replies with 100 prompt tokens, 40 of them cached, and 10 completion tokens; counts requests by text.

    Holds the first `concurrent` requests back until all of them have arrived, so that many are in flight at once.
    """

    def __init__(self, concurrent: int = 1) -> None:
        self.requests: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._concurrent, self._barrier = concurrent, threading.Barrier(concurrent)

    def __call__(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self._lock:
            self.requests[body["messages"][-1]["content"]] += 1
            first = sum(self.requests.values()) <= self._concurrent
        if first:
            self._barrier.wait(30)
        choice = {"message": {"content": "[[7]]"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 40}}
        return 200, {"model": "m", "choices": [choice], "usage": usage}


async def query_all(config: JudgeConfig, budget: Budget, ledger: Path | None, count: int) -> list[ParsedReply[float]]:
    """Send all requests concurrently."""
    async with open_judge(config, ledger=ledger, budget=budget) as judge:
        return await _query_judge(judge, count)


async def _query_judge(judge: Judge, count: int) -> list[ParsedReply[float]]:
    results = await asyncio.gather(
        *(judge.query(request_number(n), parse_rating) for n in range(count)), return_exceptions=True
    )
    errors = [result for result in results if isinstance(result, BaseException)]
    if errors:
        assert {type(error) for error in errors} == {BudgetExceeded}
        raise errors[0]
    return [result for result in results if isinstance(result, ParsedReply)]


def make_call(budget: Budget, usage: TokenUsage, text: str = "", **settings: Any) -> None:
    """Spend from the budget as one call does, without a server."""
    account = budget.account(judge_config("http://127.0.0.1:9/v1", **settings))

    async def call() -> None:
        async with account.call(request_number(0)) as call:
            call.report_usage(usage, text)

    asyncio.run(call())


@pytest.fixture
def counting_server(serve_chat: Serve) -> Iterator[tuple[CountingServer, JudgeConfig]]:
    counting_server = CountingServer()
    with serve_chat(counting_server) as server:
        yield counting_server, judge_config(server.url)


def test_call_budget_is_spent_exactly_with_32_calls_in_flight(serve_chat: Serve) -> None:
    counting_server = CountingServer(concurrent=32)
    with (
        serve_chat(counting_server) as server,
        Budget(BudgetConfig(calls=70)) as budget,
        pytest.raises(BudgetExceeded) as error,
    ):
        asyncio.run(query_all(judge_config(server.url), budget, None, 200))
    assert sum(counting_server.requests.values()) == 70
    assert "score.budget.calls of 70 calls is reached" in str(error.value)
    assert "70 calls, 7,700 tokens" in str(error.value)


# 200 calls of 110 tokens, or of 60 prompt tokens at 1000, 40 at 500 and 10 at 5000 a million: 0.13.
@pytest.mark.parametrize("limits", [BudgetConfig(tokens=22_000), BudgetConfig(money=26.0)])
def test_token_and_money_budgets_not_exceeded_with_32_calls_in_flight(serve_chat: Serve, limits: BudgetConfig) -> None:
    counting_server = CountingServer(concurrent=32)
    with serve_chat(counting_server) as server, Budget(limits, PRICES) as budget, pytest.raises(BudgetExceeded):
        asyncio.run(query_all(judge_config(server.url), budget, None, 260))
    calls = sum(counting_server.requests.values())
    # About 600 tokens, or 0.80, are reserved for a call: the last five may not fit.
    assert 190 <= calls <= 200
    assert budget.spent == Usage(calls, 100 * calls, 10 * calls, 40 * calls, pytest.approx(0.13 * calls))


def test_raised_budget_resumes_without_repeated_calls(
    counting_server: tuple[CountingServer, JudgeConfig], tmp_path: Path
) -> None:
    server, config = counting_server
    ledger, file = tmp_path / "ledger.sqlite", tmp_path / "budget.json"
    for calls in (20, 45):
        with Budget(BudgetConfig(calls=calls), file=file) as budget, pytest.raises(BudgetExceeded):
            asyncio.run(query_all(config, budget, ledger, 60))
        assert sum(server.requests.values()) == calls
    with Budget(BudgetConfig(calls=60), file=file) as budget:
        replies = asyncio.run(query_all(config, budget, ledger, 60))
    assert [reply.value for reply in replies] == [7.0] * 60
    assert set(server.requests.values()) == {1}
    assert budget.metrics() == {"budget/calls": 60.0, "budget/tokens": 6600.0}


def test_exceeded_budget_stops_next_run_before_first_call(
    counting_server: tuple[CountingServer, JudgeConfig], tmp_path: Path
) -> None:
    server, config = counting_server
    for _ in range(2):
        with Budget(BudgetConfig(calls=5), file=tmp_path / "budget.json") as budget, pytest.raises(BudgetExceeded):
            asyncio.run(query_all(config, budget, tmp_path / "ledger.sqlite", 10))
    assert sum(server.requests.values()) == 5


def test_calls_in_flight_of_killed_process_count_at_maximum(tmp_path: Path) -> None:
    file = tmp_path / "budget.json"
    store = UsageStore(file)
    store.write(Usage(3, 300, 30, 0, 0.5), Usage(2, 1000, 100, 0, 0.25))
    store.close()  # a killed process closes its files too
    with Budget(BudgetConfig(calls=10), file=file) as budget:
        assert budget.spent == Usage(5, 1300, 130, 0, 0.75)


def test_budget_file_locked(tmp_path: Path) -> None:
    limits = BudgetConfig(calls=10)
    with Budget(limits, file=tmp_path / "b.json"), pytest.raises(StateError, match="another process is spending"):
        Budget(limits, file=tmp_path / "b.json")
    Budget(limits, file=tmp_path / "b.json").close()


def test_damaged_budget_file_is_error(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text('{"spent": 12')
    with pytest.raises(StateError, match=r"b\.json"):
        Budget(BudgetConfig(calls=10), file=tmp_path / "b.json")


def test_money_budget_needs_price_of_every_judge() -> None:
    judge = {"dimensions": {"faithfulness": {"model": "dear"}}}
    with pytest.raises(ConfigError, match=r"score.budget.money is set.*dear.*prices.models"):
        open_judge(
            judge_config("http://127.0.0.1:9/v1", **judge), ledger=None, budget=Budget(BudgetConfig(money=1), PRICES)
        )


def test_without_price_no_money_reported(counting_server: tuple[CountingServer, JudgeConfig]) -> None:
    _, config = counting_server
    with Budget(BudgetConfig(tokens=10_000)) as budget:
        asyncio.run(query_all(config, budget, None, 1))
    assert budget.metrics() == {"budget/calls": 1.0, "budget/tokens": 110.0}
    assert budget.summary() == "1 calls, 110 tokens"


def test_token_budget_needs_limit_on_replies() -> None:
    config = judge_config("http://127.0.0.1:9/v1", extra_body={"max_tokens": None})
    for limits in (BudgetConfig(tokens=1000), BudgetConfig(money=10)):
        with pytest.raises(ConfigError, match=r"leave max_tokens out of it, or limit score\.budget\.calls"):
            Budget(limits, PRICES).account(config)
    Budget(BudgetConfig(calls=1000)).account(config)


def test_refused_call_is_free_and_timed_out_call_counts_at_maximum(serve_chat: Serve) -> None:
    with serve_chat(lambda _: (503, {"error": {"message": "busy"}})) as server:
        budget = Budget(BudgetConfig(tokens=10_000))
        with pytest.raises(JudgeUnavailable):
            asyncio.run(query_one(judge_config(server.url), budget))
        assert budget.spent == Usage()

    def slow(_: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        time.sleep(0.3)
        return 503, {}

    with serve_chat(slow) as server:
        with pytest.raises(JudgeUnavailable):
            asyncio.run(query_one(judge_config(server.url, timeout_s=0.1), budget))
        text = len(request_number(0).text)
        assert (budget.spent.calls, budget.spent.tokens) == (1, text + 128 + 50)


async def query_one(config: JudgeConfig, budget: Budget) -> None:
    async with open_judge(config, ledger=None, budget=budget) as judge:
        await judge.query(request_number(0), parse_rating)


def test_usage_estimated_if_server_reports_none(serve_chat: Serve) -> None:
    choice = {"message": {"content": "It is fine. [[7]]"}, "finish_reason": "stop"}
    with serve_chat(lambda _: (200, {"choices": [choice]})) as server:
        budget = Budget(BudgetConfig(tokens=10_000))
        asyncio.run(query_one(judge_config(server.url), budget))
    assert budget.spent.prompt_tokens == len(request_number(0).text) * 2 // 7  # 3.5 bytes a token
    assert budget.spent.completion_tokens == 17 * 2 // 7


@pytest.mark.parametrize(
    ("price", "cost"),
    [
        (Price(prompt=2.0, completion=10.0), 2.0 * 0.3 + 10.0 * 0.1),
        (Price(prompt=2.0, cached_prompt=1.0, completion=10.0), 2.0 * 0.1 + 1.0 * 0.2 + 10.0 * 0.1),
    ],
)
def test_cost_of_cached_tokens(price: Price, cost: float) -> None:
    assert price.cost(300_000, 100_000, cached=200_000) == pytest.approx(cost)
    assert price.cost(300_000, 100_000, cached=200_000, batch=True) == pytest.approx(cost / 2)


def test_budget_file_format(tmp_path: Path) -> None:
    with Budget(BudgetConfig(calls=10), file=tmp_path / "b.json") as budget:
        account = budget.account(JudgeConfig())

        async def spend() -> None:
            async with account.call(request_number(0)) as call:
                assert json.loads((tmp_path / "b.json").read_text())["reserved"]["calls"] == 1
                call.report_usage(TokenUsage(100, 10))

        asyncio.run(spend())
    content = json.loads((tmp_path / "b.json").read_text())
    assert content["spent"] == {
        "calls": 1, "prompt_tokens": 100, "completion_tokens": 10, "cached_tokens": 0, "money": 0.0
    }  # fmt: skip
    assert content["reserved"]["calls"] == 0
    assert (tmp_path / "b.json").stat().st_size == 512


def maximum_usage(config: JudgeConfig, budget: Budget, request: ChatRequest) -> Usage:
    """Return the usage that is reserved for a call in flight."""

    async def reserve() -> Usage:
        async with budget.account(config).call(request) as call:
            call.report_usage(TokenUsage(1, 1))
            return call.maximum

    return asyncio.run(reserve())


def test_reservation_includes_n_choices_and_thinking_tokens() -> None:
    request = request_number(3)
    prompt = len(request.text) + 128
    url = "http://127.0.0.1:9/v1"
    limits = BudgetConfig(money=1000)
    one = maximum_usage(judge_config(url), Budget(limits, PRICES), request)
    assert one == Usage(1, prompt, 50, 0, pytest.approx(prompt * 1000 / 1e6 + 50 * 5000 / 1e6))
    four = maximum_usage(judge_config(url, extra_body={"n": 4}), Budget(limits, PRICES), request)
    assert four == Usage(1, prompt, 200, 0, pytest.approx(prompt * 1000 / 1e6 + 200 * 5000 / 1e6))
    invalid = maximum_usage(judge_config(url, extra_body={"n": "4"}), Budget(limits, PRICES), request)
    assert invalid.completion_tokens == 50
    limit = maximum_usage(judge_config(url, extra_body={"max_tokens": 70, "n": 3}), Budget(limits, PRICES), request)
    assert limit.completion_tokens == 210  # the limit in extra_body, not that of the prompt
    thinking = maximum_usage(
        judge_config(url, thinking_tokens=30, extra_body={"n": 2}), Budget(limits, PRICES), request
    )
    assert thinking.completion_tokens == 160


@pytest.mark.parametrize(("mode", "share"), [("live", 1.0), ("batch", 0.3), ("batch_files", 0.3)])
def test_batch_calls_cost_share_of_price(mode: str, share: float) -> None:
    prices = PricesConfig(models={"m": Price(prompt=1000.0, completion=5000.0, batch_share=0.3)})
    request = request_number(3)
    budget = Budget(BudgetConfig(money=1000), prices)
    reserved = maximum_usage(judge_config("http://127.0.0.1:9/v1", mode=mode), budget, request)
    assert reserved.money == pytest.approx(((len(request.text) + 128) * 1000 + 50 * 5000) / 1e6 * share)
    assert budget.spent.money == pytest.approx((1000 + 5000) / 1e6 * share)


def test_batches_in_flight_of_killed_process_do_not_count(tmp_path: Path) -> None:
    """The next run collects the replies of a batch and pays for them then; the reply to a live call is lost."""
    for mode, calls in (("batch", 0), ("live", 1)):
        with Budget(BudgetConfig(calls=9), file=tmp_path / mode) as budget:
            account = budget.account(judge_config("http://127.0.0.1:9/v1", mode=mode))

            async def reserve(account: Any = account, mode: str = mode) -> int:
                async with account.call(request_number(0)) as call:
                    content = json.loads((tmp_path / mode).read_text())
                    call.report_usage(TokenUsage(1, 1))
                    return int(content["reserved"]["calls"])

            assert asyncio.run(reserve()) == calls, mode


def test_exceeded_budget_rejects_smaller_calls_too() -> None:
    """Otherwise a run would continue for hours with the few requests that are small enough."""
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


def test_call_waits_for_released_reservations_in_order() -> None:
    budget = Budget(BudgetConfig(tokens=100))
    order: list[str] = []

    async def call(name: str, maximum: int, used: int, gate: asyncio.Event) -> None:
        await budget.reserve(Usage(1, maximum, 0), Usage())
        order.append(name)
        await gate.wait()
        budget.release(Usage(1, maximum, 0), Usage(), Usage(1, used, 0))

    async def spend() -> None:
        first, later = asyncio.Event(), asyncio.Event()
        later.set()
        tasks = [asyncio.create_task(call("first", 70, 10, first))]
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(call("large", 60, 60, later)), asyncio.create_task(call("small", 20, 20, later))]
        for _ in range(5):
            await asyncio.sleep(0)
        assert order == ["first"]  # the small call would fit, and does not overtake the large one
        first.set()
        await asyncio.gather(*tasks)

    asyncio.run(spend())
    assert order == ["first", "large", "small"]
    assert budget.spent == Usage(3, 90, 0)
    assert budget._reserved == Usage()


@pytest.mark.parametrize("kind", ["calls", "tokens", "money"])
def test_budget_can_be_spent_exactly(kind: str) -> None:
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


def test_metrics_of_this_process_and_of_all_runs(tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    for count in (2, 3):
        with Budget(BudgetConfig(calls=10), PRICES, file=file) as budget:
            for _ in range(count):
                make_call(budget, TokenUsage(100, 10, 40))
    assert budget.metrics() == {
        "money": pytest.approx(3 * 0.13),
        "budget/calls": 5.0,
        "budget/tokens": 550.0,
        "budget/money": pytest.approx(5 * 0.13),
    }


def test_usage_above_maximum_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    budget = Budget(BudgetConfig(tokens=100_000))
    make_call(budget, TokenUsage(500, 3000))
    assert "counted 3500 tokens for a call of at most" in caplog.text
    assert budget.spent.tokens == 3500


def test_cancelled_call_counts_at_maximum() -> None:
    budget = Budget(BudgetConfig(tokens=100_000))
    account = budget.account(judge_config("http://127.0.0.1:9/v1"))

    async def spend() -> None:
        async def call() -> None:
            async with account.call(request_number(0)):
                await asyncio.Event().wait()

        task = asyncio.create_task(call())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(spend())
    assert budget.spent == Usage(1, len(request_number(0).text) + 128, 50)


@pytest.mark.parametrize(("text", "completion"), [("It is fine. [[7]]", 17 * 2 // 7 + 30), ("", 50 + 30)])
def test_estimated_usage_includes_thinking_tokens(text: str, completion: int) -> None:
    """An empty reply may consist of reasoning up to the limit."""
    budget = Budget(BudgetConfig(tokens=10_000))
    make_call(budget, TokenUsage(), text, thinking_tokens=30)
    assert budget.spent.completion_tokens == completion


def test_released_reservations_leave_no_rounding_errors() -> None:
    """Rounding errors of 1e-16 must not reject a last call that fits exactly."""
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


def test_budget_works_in_successive_event_loops() -> None:
    budget = Budget(BudgetConfig(calls=1))
    call, nothing = Usage(calls=1), Usage()

    async def wait_for_a_failed_call() -> None:
        async def fail() -> None:
            await asyncio.sleep(0.01)
            budget.release(call, nothing, nothing)

        await budget.reserve(call, nothing)
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            await budget.reserve(call, nothing)
        budget.release(call, nothing, nothing)

    asyncio.run(wait_for_a_failed_call())
    asyncio.run(wait_for_a_failed_call())
    assert budget.spent == nothing
