"""The rate limiter, in virtual time."""

import asyncio
import contextlib

import pytest
from virtual_time import in_virtual_time

from longreward.judge.rate_limiter import RateLimiter


def now() -> float:
    return asyncio.get_running_loop().time()


async def admission_times(limiter: RateLimiter, estimates: list[int], real: list[int] | None = None) -> list[int]:
    """Return the seconds between the first admission and each admission."""
    starts: list[float] = []

    async def one(n: int) -> None:
        async with limiter.call(estimates[n]) as call:
            starts.append(now())
            if real:
                call.tokens = real[n]

    await asyncio.gather(*(one(n) for n in range(len(estimates))))
    return [round(start - starts[0]) for start in starts]


@in_virtual_time
async def test_concurrency_limit() -> None:
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


@pytest.mark.parametrize(
    ("limits", "tokens", "admitted"),
    [
        ({"requests_per_minute": 2}, [1, 1, 1, 1, 1], [0, 0, 60, 60, 120]),
        ({"tokens_per_minute": 100}, [60, 40, 10], [0, 0, 60]),
        ({"tokens_per_minute": 100}, [50, 500, 50], [0, 60, 120]),  # a call above the limit runs alone
        ({"tokens_per_minute": 100}, [60, 50, 5], [0, 60, 60]),  # a small call does not overtake a large one
    ],
)
@in_virtual_time
async def test_limits_hold_in_any_60_seconds(limits: dict[str, int], tokens: list[int], admitted: list[float]) -> None:
    limiter = RateLimiter(max_concurrency=9, **limits)  # type: ignore[arg-type]
    assert await admission_times(limiter, tokens) == admitted


@in_virtual_time
async def test_fewer_tokens_than_estimated_admit_next_call_earlier() -> None:
    limiter = RateLimiter(max_concurrency=9, tokens_per_minute=100)
    assert max(await admission_times(limiter, [90, 90, 90], real=[5, 5, 5])) < 5


@in_virtual_time
async def test_call_that_sent_nothing_does_not_count() -> None:
    limiter = RateLimiter(max_concurrency=9, requests_per_minute=1, tokens_per_minute=100)
    assert await admission_times(limiter, [90, 90, 90, 90], real=[0, 0, 50, 50]) == [0, 0, 0, 60]


@in_virtual_time
async def test_cancelled_call_releases_slot() -> None:
    limiter = RateLimiter(max_concurrency=1)

    async def hold() -> None:
        async with limiter.call(1):
            await asyncio.sleep(60)

    task = asyncio.create_task(hold())
    await asyncio.sleep(0)
    task.cancel()
    async with limiter.call(1):
        pass


@in_virtual_time
async def test_overload_halves_limit_once_per_round_and_successes_restore_it() -> None:
    limiter = RateLimiter(max_concurrency=64)

    async def overloaded_call() -> None:
        async with limiter.call(1) as call:
            await asyncio.sleep(0)
            limiter.record_overload(call, None)

    await asyncio.sleep(1)
    await asyncio.gather(*(overloaded_call() for _ in range(64)))
    assert limiter.concurrency_limit == 32
    await asyncio.sleep(1)
    await asyncio.gather(*(overloaded_call() for _ in range(32)))
    assert limiter.concurrency_limit == 16
    for _ in range(16):  # one round raises the limit by 64 / 32 = 2 at most
        limiter.record_success()
    assert limiter.concurrency_limit == 17
    for _ in range(2000):
        limiter.record_success()
    assert limiter.concurrency_limit == 64


@in_virtual_time
async def test_limit_stays_at_least_1_and_is_fixed_without_adaptive() -> None:
    for adaptive, limit in ((True, 1), (False, 2)):
        limiter = RateLimiter(max_concurrency=2, adaptive=adaptive)
        for _ in range(5):
            await asyncio.sleep(1)
            async with limiter.call(1) as call:
                limiter.record_overload(call, None)
        assert limiter.concurrency_limit == limit


@in_virtual_time
async def test_retry_after_pauses_all_calls() -> None:
    limiter = RateLimiter(max_concurrency=4, adaptive=False)
    async with limiter.call(1) as call:
        limiter.record_overload(call, 7.0)
        waiting = asyncio.create_task(admission_times(limiter, [1, 1]))
        assert await waiting == [0, 0]
        assert now() == 7.0


@in_virtual_time
async def test_mean_concurrency_ignores_idle_time() -> None:
    limiter = RateLimiter(max_concurrency=4)
    async with limiter.call(1):
        await asyncio.sleep(3)
        async with limiter.call(1):
            await asyncio.sleep(1)
    await asyncio.sleep(100)  # idle
    assert limiter.mean_concurrency == 1.25  # (3 × 1 + 1 × 2) / 4


@in_virtual_time
async def test_timeout_lowers_limit_to_current_throughput() -> None:
    limiter = RateLimiter(max_concurrency=32)
    for _ in range(9):
        limiter.record_success()  # before the call that will time out
    async with limiter.call(1) as late, contextlib.AsyncExitStack() as stack:
        for _ in range(29):
            await stack.enter_async_context(limiter.call(1))
        for _ in range(7):
            limiter.record_success()
        await asyncio.sleep(60)
        limiter.record_overload(late, None, timed_out=True)
    assert limiter.concurrency_limit == 7  # and not half of the 30 in flight
    await asyncio.sleep(1)
    async with limiter.call(1) as second:
        await asyncio.sleep(60)
        limiter.record_overload(second, None, timed_out=True)
    assert limiter.concurrency_limit == 1  # no reply meanwhile: one call shows whether the server is back


@in_virtual_time
async def test_latency_is_moving_average() -> None:
    limiter = RateLimiter(max_concurrency=4)
    assert limiter.latency_s is None
    for seconds in (10, 30):
        async with limiter.call(1) as call:
            await asyncio.sleep(seconds)
            limiter.record_success(call)
    assert limiter.latency_s == pytest.approx(10 + 0.1 * 20)


@in_virtual_time
async def test_call_cancelled_right_after_admission_releases_slot() -> None:
    """With one slot, a lost slot would block every later call forever."""
    limiter = RateLimiter(max_concurrency=1)
    entered = []

    async def enter(name: str) -> None:
        async with limiter.call(1):
            entered.append(name)

    async with limiter.call(1):
        waiting = [asyncio.create_task(enter(name)) for name in ("cancelled", "behind it")]
        await asyncio.sleep(0)  # both are in the queue
    waiting[0].cancel()  # admitted by the end of the block, cancelled before it could run
    await asyncio.gather(*waiting, return_exceptions=True)
    assert [task.cancelled() for task in waiting] == [True, False]
    await enter("next")
    assert entered == ["behind it", "next"]


@in_virtual_time
async def test_cancelled_large_call_in_queue_lets_small_one_run() -> None:
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
async def test_cancelled_call_in_queue_lets_next_one_run() -> None:
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
@in_virtual_time
async def test_latest_retry_after_counts(waits: tuple[float | None, ...]) -> None:
    limiter = RateLimiter(max_concurrency=4, adaptive=False)
    async with limiter.call(1) as one, limiter.call(1) as other:
        for call, wait in zip((one, other), waits, strict=True):
            limiter.record_overload(call, wait)
        await admission_times(limiter, [1])
    assert now() == 7.0


@in_virtual_time
async def test_call_longer_than_minute_counts_only_in_first_minute() -> None:
    limiter = RateLimiter(max_concurrency=9, tokens_per_minute=100)
    async with limiter.call(40) as second:
        async with limiter.call(50) as long:
            await asyncio.sleep(65)
            async with limiter.call(30):  # both are older than a minute by now
                pass
            long.tokens = 500  # reported more than a minute after it started
        second.tokens = 90
        await asyncio.sleep(1)
        assert await admission_times(limiter, [70]) == [0]
        assert now() == 66.0  # 30 + 70 of 100: it did not wait


@in_virtual_time
async def test_real_tokens_count_from_end_of_call() -> None:
    limiter = RateLimiter(max_concurrency=9, tokens_per_minute=100)
    async with limiter.call(10) as call:
        await asyncio.sleep(20)
        call.tokens = 95
    await admission_times(limiter, [10])
    assert now() == 60.0  # 95 + 10 exceed 100 until the first call expires


@in_virtual_time
async def test_call_expires_after_exactly_60_seconds() -> None:
    limiter = RateLimiter(max_concurrency=9, requests_per_minute=1)
    async with limiter.call(1):
        pass
    await asyncio.sleep(60)
    await admission_times(limiter, [1])
    assert now() == 60.0
    await asyncio.sleep(59.5)
    await admission_times(limiter, [1])
    assert now() == 120.0


@in_virtual_time
async def test_recovery_speed_is_proportional_to_max_concurrency() -> None:
    """From 1 back to all within RECOVERY_ROUNDS rounds, for any `max_concurrency`: 96 / 32 = 3 a round."""
    limiter = RateLimiter(max_concurrency=96)
    async with limiter.call(1) as call:
        await asyncio.sleep(1)
        limiter.record_overload(call, None)
    assert limiter.concurrency_limit == 1
    limiter.record_success()
    assert limiter.concurrency_limit == 4
    for _ in range(4):
        limiter.record_success()
    assert limiter.concurrency_limit == 6  # 4 + 3 / 4 + 3 / 4.75 + …
