"""Run async calls concurrently: in order, with progress, with a limit; share one computation between tasks."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from threading import Lock
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def gather(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all calls concurrently and return their results in order.

    Unlike `asyncio.gather`, the first failure cancels the other calls and waits until they have ended. It is raised
    as it is, not within an ExceptionGroup.
    """
    coroutines = list(calls)
    if len(coroutines) == 1:  # most panels have one judge, and most responses few statements
        return [await coroutines[0]]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in coroutines]
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


@asynccontextmanager
async def shared_call(call: Coroutine[Any, Any, T]) -> AsyncGenerator[Callable[[], Awaitable[T]], None]:
    """Start `call` and yield a function that several tasks await for its result; it ends with the context."""
    task = asyncio.ensure_future(call)
    try:
        yield lambda: asyncio.shield(task)  # a task that is cancelled must not end the call for the others
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def with_progress(
    function: Callable[P, Awaitable[T]], on_progress: Callable[[int], None]
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Wrap `function` so that each finished call reports how many are done: `gather(map(with_progress(f, cb), xs))`."""
    done = 0

    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        nonlocal done
        result = await function(*args, **kwargs)
        done += 1
        on_progress(done)
        return result

    return wrapper


async def bounded_map(calls: AsyncIterable[Coroutine[Any, Any, T]], limit: int) -> AsyncGenerator[T, None]:
    """Yield each result in the order of `calls` while at most `limit` of them run; `calls` is consumed lazily.

    The first failure in that order is raised. A failure, or closing the generator, cancels the running calls and waits
    until they have ended.
    """
    running: deque[asyncio.Task[T]] = deque()
    try:
        async for call in calls:
            running.append(asyncio.create_task(call))
            if len(running) >= limit:
                yield await running[0]
                running.popleft()
        while running:
            yield await running[0]
            running.popleft()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


class SharedResult(Generic[T]):
    """The result of a function that runs once, in a thread, for any number of tasks in any number of event loops.

    A thread does not make pure Python faster, but the event loop stays responsive: the interpreter switches threads
    every few milliseconds. A task that is cancelled stops waiting; the function continues for the others.
    """

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._future: Future[T] | None = None
        self._lock = Lock()

    async def get(self) -> T:
        """Return the result; raises what the function raised."""
        with self._lock:  # held for microseconds, so it does not block the event loop
            future, is_first = self._future or Future[T](), self._future is None
            self._future = future
        if is_first:
            # A running future cannot be cancelled, so the cancellation of one task does not reach the others.
            future.set_running_or_notify_cancel()
            asyncio.get_running_loop().run_in_executor(None, self._run, future)
        return future.result() if future.done() else await asyncio.wrap_future(future)

    def result(self) -> T:
        """Return the result without waiting; only valid after `get` has returned once."""
        assert self._future is not None, "call get first"
        return self._future.result()

    def _run(self, future: Future[T]) -> None:
        try:
            future.set_result(self._function())
        except BaseException as error:
            future.set_exception(error)
