"""The limiter keeps calls within concurrency, requests and tokens a minute; time is a number that waiting moves."""

import asyncio
import contextlib
from collections.abc import Callable

import pytest
from virtual_time import in_virtual_time

from longreward.judge.rate_limiter import RateLimiter


class FakeTime:
    def __init__(self) -> None:
        self.now = 1000.0

    def clock(self) -> float:
        return self.now

    def call_later(self, seconds: float, what: Callable[[], None]) -> asyncio.Handle:
        def after() -> None:
            self.now += seconds
            what()

        return asyncio.get_running_loop().call_soon(after)


async def started(
    limiter: RateLimiter, time: FakeTime, estimates: list[int], real: list[int] | None = None
) -> list[int]:
    """Seconds after the first call at which each call was let through."""
    starts: list[float] = []

    async def one(n: int) -> None:
        async with limiter.call(estimates[n]) as call:
            starts.append(time.now)
            if real:
                call.tokens = real[n]

    await asyncio.gather(*(one(n) for n in range(len(estimates))))
    return [round(start - starts[0]) for start in starts]


@in_virtual_time
async def test_no_more_calls_run_at_once_than_allowed() -> None:
    limiter = RateLimiter(max_concurrency=3)
    running = peak = 0

    async def one() -> None:
        nonlocal running, peak
        async with limiter.call(1):
            running += 1
            peak = max(peak, running)
            await asyncio.sleep(0.001)
            running -= 1

    await asyncio.gather(*(one() for _ in range(20)))
    assert peak == 3


async def test_requests_a_minute_are_kept_in_any_sixty_seconds() -> None:
    time = FakeTime()
    limiter = RateLimiter(max_concurrency=9, requests_per_minute=2, clock=time.clock, call_later=time.call_later)
    assert await started(limiter, time, [1, 1, 1, 1, 1]) == [0, 0, 60, 60, 120]


async def test_tokens_a_minute_are_kept() -> None:
    time = FakeTime()
    limiter = RateLimiter(max_concurrency=9, tokens_per_minute=100, clock=time.clock, call_later=time.call_later)
    assert await started(limiter, time, [60, 40, 10]) == [0, 0, 60]


async def test_a_call_that_took_less_than_estimated_lets_others_in_sooner() -> None:
    time = FakeTime()
    limiter = RateLimiter(max_concurrency=9, tokens_per_minute=100, clock=time.clock, call_later=time.call_later)
    assert max(await started(limiter, time, [90, 90, 90], real=[5, 5, 5])) < 5


async def test_a_call_larger_than_the_minute_goes_alone_and_nothing_waits_for_ever() -> None:
    time = FakeTime()
    limiter = RateLimiter(max_concurrency=9, tokens_per_minute=100, clock=time.clock, call_later=time.call_later)
    assert await started(limiter, time, [50, 500, 50]) == [0, 60, 120]


@in_virtual_time
async def test_a_cancelled_call_gives_its_place_back() -> None:
    limiter = RateLimiter(max_concurrency=1)

    async def hold() -> None:
        async with limiter.call(1):
            await asyncio.sleep(60)

    task = asyncio.create_task(hold())
    await asyncio.sleep(0)
    task.cancel()
    async with limiter.call(1):
        pass


async def test_room_is_halved_once_for_the_calls_of_one_moment_and_comes_back_step_by_step() -> None:
    time = FakeTime()
    limiter = RateLimiter(max_concurrency=64, clock=time.clock, call_later=time.call_later)

    async def turned_away() -> None:
        async with limiter.call(1) as call:
            await asyncio.sleep(0)
            limiter.record_overload(call, None)

    time.now += 1
    await asyncio.gather(*(turned_away() for _ in range(64)))
    assert limiter.concurrency_limit == 32
    time.now += 1
    await asyncio.gather(*(turned_away() for _ in range(32)))
    assert limiter.concurrency_limit == 16
    for _ in range(16):  # a round of answered calls lets two more in: a 32nd part of 64
        limiter.record_success()
    assert limiter.concurrency_limit == 17
    for _ in range(2000):
        limiter.record_success()
    assert limiter.concurrency_limit == 64


async def test_room_never_closes_and_stays_where_it_is_not_to_adapt() -> None:
    time = FakeTime()
    for adaptive, room in ((True, 1), (False, 2)):
        limiter = RateLimiter(max_concurrency=2, adaptive=adaptive, clock=time.clock, call_later=time.call_later)
        for _ in range(5):
            time.now += 1
            async with limiter.call(1) as call:
                limiter.record_overload(call, None)
        assert limiter.concurrency_limit == room


async def test_a_server_that_says_when_to_come_back_is_left_alone_by_all_calls_until_then() -> None:
    time = FakeTime()
    limiter = RateLimiter(max_concurrency=4, adaptive=False, clock=time.clock, call_later=time.call_later)
    async with limiter.call(1) as call:
        limiter.record_overload(call, 7.0)
        waiting = asyncio.create_task(started(limiter, time, [1, 1]))
        assert await waiting == [0, 0]
        assert time.now == 1007.0


async def test_calls_in_flight_are_counted_over_the_time_in_which_there_are_any() -> None:
    time = FakeTime()
    limiter = RateLimiter(max_concurrency=4, clock=time.clock, call_later=time.call_later)
    async with limiter.call(1):
        time.now += 3
        async with limiter.call(1):
            time.now += 1
    time.now += 100  # idle
    assert limiter.mean_concurrency == 1.25  # (3 × 1 + 1 × 2) / 4


async def test_after_a_time_out_no_more_calls_run_than_were_answered_in_that_time() -> None:
    time = FakeTime()
    limiter = RateLimiter(max_concurrency=32, clock=time.clock, call_later=time.call_later)
    for _ in range(9):
        limiter.record_success()  # before the call that will time out
    async with limiter.call(1) as late, contextlib.AsyncExitStack() as stack:
        for _ in range(29):
            await stack.enter_async_context(limiter.call(1))
        for _ in range(7):
            limiter.record_success()
        time.now += 60
        limiter.record_overload(late, None, timed_out=True)
    assert limiter.concurrency_limit == 7  # and not half of the 30 in flight
    time.now += 1
    async with limiter.call(1) as second:
        time.now += 60
        limiter.record_overload(second, None, timed_out=True)
    assert limiter.concurrency_limit == 1  # no reply meanwhile: one call shows whether the server is back


async def test_how_long_a_reply_takes_is_a_mean_in_which_the_newest_counts_most() -> None:
    time = FakeTime()
    limiter = RateLimiter(max_concurrency=4, clock=time.clock, call_later=time.call_later)
    assert limiter.latency_s is None
    for seconds in (10, 30):
        async with limiter.call(1) as call:
            time.now += seconds
            limiter.record_success(call)
    assert limiter.latency_s == pytest.approx(10 + 0.1 * 20)


@in_virtual_time
async def test_a_call_that_is_cancelled_right_after_it_was_let_through_gives_its_place_back() -> None:
    """With one slot, a place that is lost here would leave every later call waiting for ever."""
    limiter = RateLimiter(max_concurrency=1)
    entered = []

    async def enter(name: str) -> None:
        async with limiter.call(1):
            entered.append(name)

    async with limiter.call(1):
        waiting = [asyncio.create_task(enter(name)) for name in ("cancelled", "behind it")]
        await asyncio.sleep(0)  # they stand in the queue
    waiting[0].cancel()  # let through by the end of the block, and cancelled before it could run
    await asyncio.gather(*waiting, return_exceptions=True)
    assert [task.cancelled() for task in waiting] == [True, False]
    await enter("next")
    assert entered == ["behind it", "next"]


@in_virtual_time
async def test_a_large_call_that_is_cancelled_in_the_queue_lets_a_small_one_through() -> None:
    limiter = RateLimiter(max_concurrency=9, tokens_per_minute=100)
    loop = asyncio.get_running_loop()
    async with limiter.call(60):
        large = asyncio.create_task(limiter.call(90).__aenter__())
        small = asyncio.create_task(limiter.call(20).__aenter__())
        await asyncio.sleep(0)
        large.cancel()
        await small
    assert loop.time() == 0.0


@in_virtual_time
async def test_a_call_that_is_cancelled_in_the_queue_leaves_its_turn_to_the_next() -> None:
    limiter = RateLimiter(max_concurrency=1)
    order: list[int] = []

    async def enter(number: int) -> None:
        async with limiter.call(1):
            order.append(number)

    async with limiter.call(1):
        tasks = [asyncio.create_task(enter(number)) for number in (3, 1, 2)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.gather(tasks[0], return_exceptions=True)
    await asyncio.gather(*tasks[1:])
    assert order == [1, 2]


@pytest.mark.parametrize("waits", [(7.0, 3.0), (3.0, 7.0), (7.0, None)])
async def test_of_several_times_to_come_back_the_latest_holds(waits: tuple[float | None, ...]) -> None:
    time = FakeTime()
    limiter = RateLimiter(max_concurrency=4, adaptive=False, clock=time.clock, call_later=time.call_later)
    async with limiter.call(1) as one, limiter.call(1) as other:
        for call, wait in zip((one, other), waits, strict=True):
            limiter.record_overload(call, wait)
        await started(limiter, time, [1])
    assert time.now == 1007.0


async def test_a_call_longer_than_a_minute_is_counted_in_the_minute_in_which_it_began_alone() -> None:
    time = FakeTime()
    limiter = RateLimiter(max_concurrency=9, tokens_per_minute=100, clock=time.clock, call_later=time.call_later)
    async with limiter.call(40) as second:
        async with limiter.call(50) as long:
            time.now += 65
            async with limiter.call(30):  # both have left the minute by now
                pass
            long.tokens = 500  # known at its end, a minute and more after it began
        second.tokens = 90
        time.now += 1
        assert await started(limiter, time, [70]) == [0]
        assert time.now == 1066.0  # 30 + 70 of 100: it waited for nothing


async def test_what_a_call_took_is_counted_from_its_end_on_while_it_is_in_the_minute() -> None:
    time = FakeTime()
    limiter = RateLimiter(max_concurrency=9, tokens_per_minute=100, clock=time.clock, call_later=time.call_later)
    async with limiter.call(10) as call:
        time.now += 20
        call.tokens = 95
    await started(limiter, time, [10])
    assert time.now == 1060.0  # 95 + 10 are more than 100 until the first has left the minute


async def test_a_waiting_call_is_not_overtaken_by_a_smaller_one() -> None:
    time = FakeTime()
    limiter = RateLimiter(max_concurrency=9, tokens_per_minute=100, clock=time.clock, call_later=time.call_later)
    assert await started(limiter, time, [60, 50, 5]) == [0, 60, 60]


async def test_a_call_at_exactly_sixty_seconds_has_left_the_minute() -> None:
    time = FakeTime()
    limiter = RateLimiter(max_concurrency=9, requests_per_minute=1, clock=time.clock, call_later=time.call_later)
    async with limiter.call(1):
        pass
    time.now += 60
    await started(limiter, time, [1])
    assert time.now == 1060.0
    time.now += 59.5
    await started(limiter, time, [1])
    assert time.now == 1120.0


async def test_room_grows_faster_the_more_calls_are_allowed() -> None:
    """From 1 back to all within ROUNDS_BACK rounds, whatever `max_concurrency` is: 96 / 32 = 3 a round."""
    time = FakeTime()
    limiter = RateLimiter(max_concurrency=96, clock=time.clock, call_later=time.call_later)
    async with limiter.call(1) as call:
        time.now += 1
        limiter.record_overload(call, None)
    assert limiter.concurrency_limit == 1
    limiter.record_success()
    assert limiter.concurrency_limit == 4
    for _ in range(4):
        limiter.record_success()
    assert limiter.concurrency_limit == 6  # 4 + 3 / 4 + 3 / 4.75 + …
