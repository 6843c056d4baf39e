"""An event loop whose clock jumps to the next timer as soon as nothing else is left to do.

A test in this loop does not wait, and measures the same times on a busy machine. It must not use sockets or
subprocesses: the clock would run ahead of them.
"""

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")
THREAD_TIMEOUT_S = 60.0  # of real time, after which a thread counts as stuck


class _VirtualClockSelector(selectors.DefaultSelector):  # type: ignore[valid-type, misc]
    """Advances the clock instead of waiting. Only threads are waited for; their work takes no time on the clock."""

    now = 0.0
    threads = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and (timeout <= 0 or not self.threads):
            self.now += max(timeout, 0.0)
            return super().select(0)
        if not (events := super().select(THREAD_TIMEOUT_S)):
            raise AssertionError("deadlock: every task waits, and no timer is set, or a thread is stuck")
        return events


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose `time()` starts at 0."""

    def __init__(self) -> None:
        self._clock = _VirtualClockSelector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        self._clock.threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._on_thread_done)
        return future

    def _on_thread_done(self, future: asyncio.Future[Any]) -> None:
        self._clock.threads -= 1


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test in a VirtualTimeLoop."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        run_in_virtual_time(test(*args, **kwargs))

    return run


def run_in_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    """Return the result of `main`; raises AssertionError for a deadlock."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
