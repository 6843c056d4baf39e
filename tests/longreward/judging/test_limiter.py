"""The limiter keeps calls within concurrency, requests and tokens a minute; time here is a number that waiting moves."""

import asyncio
from collections.abc import Callable

from longreward.judging.limiter import Limiter


class FakeTime:
    def __init__(self) -> None:
        self.now = 1000.0

    def clock(self) -> float:
        return self.now

    def later(self, seconds: float, what: Callable[[], None]) -> asyncio.Handle:
        def after() -> None:
            self.now += seconds
            what()

        return asyncio.get_running_loop().call_soon(after)


async def started(limiter: Limiter, time: FakeTime, estimates: list[int], real: list[int] | None = None) -> list[int]:
    """Seconds after the first call at which each call was let through."""
    starts: list[float] = []

    async def one(n: int) -> None:
        async with limiter.call(estimates[n]) as call:
            starts.append(time.now)
            if real:
                call.tokens = real[n]

    await asyncio.gather(*(one(n) for n in range(len(estimates))))
    return [round(start - starts[0]) for start in starts]


async def test_no_more_calls_run_at_once_than_allowed() -> None:
    limiter = Limiter(max_concurrency=3)
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
    limiter = Limiter(max_concurrency=9, requests_per_minute=2, clock=time.clock, later=time.later)
    assert await started(limiter, time, [1, 1, 1, 1, 1]) == [0, 0, 60, 60, 120]


async def test_tokens_a_minute_are_kept() -> None:
    time = FakeTime()
    limiter = Limiter(max_concurrency=9, tokens_per_minute=100, clock=time.clock, later=time.later)
    assert await started(limiter, time, [60, 40, 10]) == [0, 0, 60]


async def test_a_call_that_took_less_than_estimated_lets_others_in_sooner() -> None:
    time = FakeTime()
    limiter = Limiter(max_concurrency=9, tokens_per_minute=100, clock=time.clock, later=time.later)
    assert max(await started(limiter, time, [90, 90, 90], real=[5, 5, 5])) < 5


async def test_a_call_larger_than_the_minute_goes_alone_and_nothing_waits_for_ever() -> None:
    time = FakeTime()
    limiter = Limiter(max_concurrency=9, tokens_per_minute=100, clock=time.clock, later=time.later)
    assert await started(limiter, time, [50, 500, 50]) == [0, 60, 120]


async def test_a_cancelled_call_gives_its_place_back() -> None:
    limiter = Limiter(max_concurrency=1)

    async def hold() -> None:
        async with limiter.call(1):
            await asyncio.sleep(60)

    task = asyncio.create_task(hold())
    await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(1), limiter.call(1):
        pass
