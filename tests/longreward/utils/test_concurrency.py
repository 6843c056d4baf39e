"""Calls that run at once."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from longreward.utils.concurrency import bounded_map, gather, with_progress


class Calls:
    """`seconds` each; remembers how many were under way at most, and which were cancelled."""

    def __init__(self, *seconds: float) -> None:
        self.seconds, self.now, self.most, self.cancelled = seconds, 0, 0, set[int]()

    async def all(self) -> AsyncGenerator[Coroutine[Any, Any, int], None]:
        for number, seconds in enumerate(self.seconds):
            yield self.one(number, seconds)

    async def one(self, number: int, seconds: float) -> int:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(abs(seconds))
            if seconds < 0:
                raise ValueError(number)
        except asyncio.CancelledError:
            self.cancelled.add(number)
            raise
        finally:
            self.now -= 1
        return number


async def test_results_come_in_order_with_no_more_calls_at_once_than_allowed() -> None:
    calls = Calls(0.03, 0.0, 0.02, 0.0, 0.01)
    assert [number async for number in bounded_map(calls.all(), 2)] == [0, 1, 2, 3, 4]
    assert calls.most == 2


async def test_a_failure_is_raised_in_its_turn_and_cancels_what_is_under_way() -> None:
    calls, found = Calls(0.0, -0.01, 60.0), list[int]()

    async def take() -> None:
        async for number in bounded_map(calls.all(), 3):
            found.append(number)

    with pytest.raises(ValueError, match="1"):
        await take()
    assert found == [0]
    assert calls.cancelled == {2}


async def test_whoever_stops_taking_results_leaves_no_call_behind() -> None:
    calls = Calls(0.0, 60.0, 60.0)
    async with aclosing(bounded_map(calls.all(), 3)) as results:
        assert await anext(results) == 0
    assert calls.cancelled == {1, 2}
    assert calls.now == 0


async def test_work_that_is_counted_tells_of_each_call_that_succeeded() -> None:
    told: list[int] = []

    async def half(number: int) -> int:
        if number % 2:
            raise ValueError(number)
        return number // 2

    count = with_progress(half, told.append)
    assert await gather(map(count, (4, 8))) == [2, 4]
    with pytest.raises(ValueError, match="3"):
        await count(3)
    assert await count(6) == 3
    assert told == [1, 2, 3]
