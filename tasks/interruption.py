"""End a run in order at Ctrl-C, SIGTERM, or a cancellation in the UI: Cancelled in Prefect, KILLED in MLflow.

    with stop_on_signals():          # in the function of a flow
        await work()                 # raises Interrupted after a signal

Prefect 3.8 by itself records such runs as Crashed, and lets the exception end the process with a traceback. Its own
cancellation, by which its runner calls the engine, exists in deployed flows only, not in their child processes and not
in a shell.
"""

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import prefect.flow_engine
import prefect.task_engine
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, exception_to_crashed_state

CONTINUES = "the next run continues from there"


class Interrupted(BaseException):
    """The run was interrupted. Not an Exception: a handler of errors must not retry or report it as one."""


_received: signal.Signals | None = None
_interruptible: set["asyncio.Task[Any]"] = set()


def received_signal() -> signal.Signals | None:
    """Return the signal that interrupts this process; None if there was none."""
    return _received


def cancelled_state() -> State[Any]:
    """Return the state of a run that the received signal interrupts."""
    name = _received.name if _received is not None else "a signal"
    return Cancelled(message=f"interrupted by {name}; {CONTINUES}")


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Raise Interrupted in the block after the first SIGINT, SIGTERM or SIGHUP, whatever the block then raises.

    Later signals are ignored, so that they do not disturb the end of the run: the pipeline, DVC and the terminal may
    each send one. Outside the main thread, which alone receives signals, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None, "a coroutine runs in a task"
    active = True

    def cancel() -> None:
        if active:
            task.cancel()

    def stop(number: int, frame: object) -> None:
        global _received
        if _received is not None:
            return
        _received = signal.Signals(number)
        if asyncio.current_task(loop) in _interruptible:
            raise Interrupted  # in a training, for example, which would keep the event loop waiting for hours
        # Otherwise through the event loop: an exception in one of its callbacks would be lost.
        loop.call_soon_threadsafe(cancel)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.getsignal(number) for number in numbers}
    for number, handler in previous.items():
        if handler is not signal.SIG_IGN:  # as SIGHUP is under `nohup`
            signal.signal(number, stop)
    try:
        with interruptible():
            yield
    except BaseException as error:
        if _received is None or isinstance(error, GeneratorExit):
            raise
    finally:
        active = False
        if _received is None:
            for number, handler in previous.items():
                signal.signal(number, handler)
    if _received is not None:
        while task.uncancel():
            pass
        raise Interrupted


@contextmanager
def interruptible() -> Iterator[None]:
    """Let a signal raise Interrupted in the code of the current asyncio task, even where it does not await."""
    task = asyncio.current_task()
    assert task is not None, "a coroutine runs in a task"
    added = task not in _interruptible
    _interruptible.add(task)
    try:
        yield
    finally:
        if added:
            _interruptible.discard(task)


async def _interrupted_or_crashed(error: BaseException, *arguments: Any, **options: Any) -> State[Any]:
    return (
        cancelled_state() if _received is not None else await exception_to_crashed_state(error, *arguments, **options)
    )


# The engines call this function of theirs wherever an exception ends a run that is not an error of the flow or task:
# also in a task that waits for its next try. They have no setting or hook for the state.
for _engine in (prefect.flow_engine, prefect.task_engine):
    assert hasattr(_engine, exception_to_crashed_state.__name__), "the engines of Prefect 3.8 have it"
    setattr(_engine, exception_to_crashed_state.__name__, _interrupted_or_crashed)
