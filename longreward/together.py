"""Runs what does not depend on each other at once, so that the whole waits for its longest chain only."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Coroutine, Iterable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def together(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All results in order. The first failure cancels the others, waits for their end, and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def counted(work: Callable[P, Awaitable[T]], tell: Callable[[int], None]) -> Callable[P, Coroutine[Any, Any, T]]:
    """`work`, which after each call tells how many are done: `together(map(counted(score, progress), items))`."""
    done = 0

    async def told(*given: P.args, **named: P.kwargs) -> T:
        nonlocal done
        result = await work(*given, **named)
        done += 1
        tell(done)
        return result

    return told


async def in_order(calls: AsyncIterable[Coroutine[Any, Any, T]], at_once: int) -> AsyncGenerator[T, None]:
    """Each result in the order of `calls`, of which `at_once` are under way; a call is taken when its turn comes.

    The first failure in that order is raised; it, and closing the generator, cancels the others and waits for their
    end.
    """
    waiting: deque[asyncio.Task[T]] = deque()
    try:
        async for call in calls:
            waiting.append(asyncio.create_task(call))
            if len(waiting) >= at_once:
                yield await waiting[0]
                waiting.popleft()
        while waiting:
            yield await waiting[0]
            waiting.popleft()
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
