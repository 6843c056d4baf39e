"""Concurrent calls."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from longreward.utils.concurrency import bounded_map, gather, with_progress


class SleepingCalls:
    """Calls that sleep, or fail where `seconds` is negative; records the peak concurrency and cancelled calls."""

    def __init__(self, *seconds: float) -> None:
        self.seconds, self.running, self.peak, self.cancelled = seconds, 0, 0, set[int]()

    async def all(self) -> AsyncGenerator[Coroutine[Any, Any, int], None]:
        for number, seconds in enumerate(self.seconds):
            yield self.one(number, seconds)

    async def one(self, number: int, seconds: float) -> int:
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await asyncio.sleep(abs(seconds))
            if seconds < 0:
                raise ValueError(number)
        except asyncio.CancelledError:
            self.cancelled.add(number)
            raise
        finally:
            self.running -= 1
        return number


async def test_bounded_map_keeps_order_and_limit() -> None:
    calls = SleepingCalls(0.03, 0.0, 0.02, 0.0, 0.01)
    assert [number async for number in bounded_map(calls.all(), 2)] == [0, 1, 2, 3, 4]
    assert calls.peak == 2


async def test_failure_raised_in_order_and_cancels_running_calls() -> None:
    calls, results_so_far = SleepingCalls(0.0, -0.01, 60.0), list[int]()

    async def collect() -> None:
        async for number in bounded_map(calls.all(), 3):
            results_so_far.append(number)

    with pytest.raises(ValueError, match="1"):
        await collect()
    assert results_so_far == [0]
    assert calls.cancelled == {2}


async def test_closing_generator_cancels_running_calls() -> None:
    calls = SleepingCalls(0.0, 60.0, 60.0)
    async with aclosing(bounded_map(calls.all(), 3)) as results:
        assert await anext(results) == 0
    assert calls.cancelled == {1, 2}
    assert calls.running == 0


async def test_with_progress_reports_each_successful_call() -> None:
    counts: list[int] = []

    async def half(number: int) -> int:
        if number % 2:
            raise ValueError(number)
        return number // 2

    count = with_progress(half, counts.append)
    assert await gather(map(count, (4, 8))) == [2, 4]
    with pytest.raises(ValueError, match="3"):
        await count(3)
    assert await count(6) == 3
    assert counts == [1, 2, 3]
