"""An event loop whose clock jumps to the next timer as soon as nothing else is left to do.

A test that runs in it waits for nothing and finds the same times on a busy machine. Sockets and subprocesses do not
belong in it: the clock would run ahead of them.
"""

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")
THREADS_S = 60.0  # of real time: how long a thread may work before the loop counts as stuck


class _Selector(selectors.DefaultSelector):  # type: ignore[valid-type, misc]
    """Moves the clock instead of waiting, except for threads: what they do takes no time on it."""

    now = 0.0
    threads = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and (timeout <= 0 or not self.threads):
            self.now += max(timeout, 0.0)
            return super().select(0)
        if not (events := super().select(THREADS_S)):
            raise AssertionError("everything waits, and no timer is set or a thread is stuck: a deadlock")
        return events


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """`time()` starts at 0."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        self._clock.threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, future: asyncio.Future[Any]) -> None:
        self._clock.threads -= 1


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Runs an async test in such a loop."""

    @functools.wraps(test)
    def run(*arguments: P.args, **fixtures: P.kwargs) -> None:
        run_in_virtual_time(test(*arguments, **fixtures))

    return run


def run_in_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    """The result of `main`; raises AssertionError where it can never end."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
