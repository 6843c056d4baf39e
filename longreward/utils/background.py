"""Work on large texts outside the event loop, done once for all who need it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


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
