"""Runs what does not depend on each other at once, so that the whole waits for its longest chain only."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import Future
from threading import Lock
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def gather(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All results in order. The first failure cancels the others, waits for their end, and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


def with_progress(work: Callable[P, Awaitable[T]], tell: Callable[[int], None]) -> Callable[P, Coroutine[Any, Any, T]]:
    """`work`, which after each call tells how many are done: `together(map(counted(score, progress), items))`."""
    done = 0

    async def told(*given: P.args, **named: P.kwargs) -> T:
        nonlocal done
        result = await work(*given, **named)
        done += 1
        tell(done)
        return result

    return told


async def bounded_map(calls: AsyncIterable[Coroutine[Any, Any, T]], at_once: int) -> AsyncGenerator[T, None]:
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


# Work on large texts outside the event loop, done once for all who need it.


class SharedResult(Generic[T]):
    """The result of a function that runs once, in a thread, however many tasks of however many event loops want it.

    The thread does not make pure Python faster, but other tasks run in between: Python passes the interpreter lock on
    every few milliseconds. A task that is cancelled stops waiting; the function goes on for the others.
    """

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._future: Future[T] | None = None
        self._lock = Lock()

    async def get(self) -> T:
        """The result; raises what the function raised."""
        with self._lock:  # never held for longer than this
            future, is_first = self._future or Future[T](), self._future is None
            self._future = future
        if is_first:
            # A running future cannot be cancelled, so that one task's cancellation does not reach the others.
            future.set_running_or_notify_cancel()
            asyncio.get_running_loop().run_in_executor(None, self._run, future)
        return future.result() if future.done() else await asyncio.wrap_future(future)

    def result(self) -> T:
        """The result, after `get` has returned it once."""
        assert self._future is not None, "get comes first"
        return self._future.result()

    def _run(self, future: Future[T]) -> None:
        try:
            future.set_result(self._function())
        except BaseException as error:
            future.set_exception(error)
