"""Show the progress of long work: a bar on a terminal, log lines elsewhere.

with show_progress("score") as update:
    for done, prompt in enumerate(prompts, 1):
        ...
        update(done, len(prompts))

score: 120 of 2,000 (6 %) after 3 min 0 s, about 47 min 0 s left
"""

import contextvars
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

ProgressUpdate = Callable[[int, int | None], None]
"""Called with the number of finished items and their total (None while it is unknown), from any thread."""

LOG_INTERVAL_S = 60.0
MAX_BAR_WIDTH, DETAIL_WIDTH = 40, 24  # columns
# Per process, not per call: a stage of many short parts would never reach a minute in one of them.
_last_line_s = time.monotonic()


ProgressObserver = Callable[["ProgressEstimate"], None]
"""Called at each update of any work in this process, from any thread; it must return at once."""
_observers: list[ProgressObserver] = []


@contextmanager
def observe_progress(observer: ProgressObserver) -> Iterator[None]:
    """Pass the progress of all work in this process to `observer` while the context is open."""
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)


def notify_observers(estimate: "ProgressEstimate") -> None:
    """Pass progress to the observers of this process: that of other processes, which only they show."""
    for observer in tuple(_observers):
        observer(estimate)


@contextmanager
def show_progress(
    title: str,
    *,
    enabled: bool = True,
    log_interval_s: float = LOG_INTERVAL_S,
    detail: Callable[[], str] = lambda: "",
) -> Iterator[ProgressUpdate]:
    """Yield a function that reports progress under `title`, and to observers, while the context is open.

    On a terminal it moves a bar. Elsewhere a thread writes a log line every `log_interval_s` seconds, even if the
    function was not called in between: one training step may take minutes, and a silent log looks like a process that
    hangs. With `enabled=False`, as in all but the first process of a distributed training, it shows nothing. `detail`
    returns a short text about the work, such as its requests so far: where an item takes minutes, it shows that the
    work goes on.
    """
    if not enabled:
        yield lambda done, total: None
        return
    estimate = ProgressEstimate(title, detail=detail)
    with _bar(title, detail) if sys.stderr.isatty() else _log_lines(estimate, log_interval_s) as show:

        def update(done: int, total: int | None) -> None:
            show(done, total)
            estimate.update(done, total)
            notify_observers(estimate)

        yield update


@contextmanager
def _log_lines(estimate: "ProgressEstimate", log_interval_s: float) -> Iterator[ProgressUpdate]:
    stop = threading.Event()

    def log_regularly() -> None:
        global _last_line_s
        # At least a second: work that starts after a long silence would report nothing done yet.
        while not stop.wait(max(min(1.0, log_interval_s), _last_line_s + log_interval_s - time.monotonic())):
            log.info("%s", estimate)
            _last_line_s = time.monotonic()

    # Prefect finds the run that a log line belongs to in context variables, which a new thread does not inherit.
    context = contextvars.copy_context()
    thread = threading.Thread(
        target=context.run, args=(log_regularly,), name=f"progress of {estimate.title}", daemon=True
    )
    thread.start()
    try:
        yield lambda done, total: None
    finally:
        stop.set()
        thread.join()


def log_progress_to_stderr() -> None:
    """Send the log lines of `show_progress` to stderr, in a command that configures no logging of its own."""
    if not log.handlers:
        log.addHandler(logging.StreamHandler())
    log.setLevel(logging.INFO)


class ProgressEstimate:
    """Estimate the remaining time of some work from its speed so far."""

    def __init__(
        self, title: str, *, clock: Callable[[], float] = time.monotonic, detail: Callable[[], str] = lambda: ""
    ) -> None:
        self.title, self._clock, self._detail = title, clock, detail
        self._started = clock()
        self._first: tuple[float, int] | None = None
        self.done, self.total = 0, None  # type: int, int | None

    def update(self, done: int, total: int | None) -> None:
        """Record that `done` of `total` items are done."""
        if self._first is None:
            # A resumed stage starts with items of an earlier process, which do not show the speed of this one.
            self._first = self._clock(), done
        self.done, self.total = done, total

    @property
    def share(self) -> float | None:
        """The share that is done, from 0 to 1; None while the total is unknown."""
        return self.done / self.total if self.total else None

    @property
    def remaining_s(self) -> float | None:
        """Seconds until the end; None before the first item of this process, or while the total is unknown."""
        if self._first is None or self.total is None:
            return None
        start, done_before = self._first
        if self.done <= done_before:
            return None
        return (self._clock() - start) / (self.done - done_before) * (self.total - self.done)

    def __str__(self) -> str:
        share = f" of {self.total:,} ({self.done / self.total:.0%})" if self.total else ""
        remaining = self.remaining_s
        suffix = "" if remaining is None else f", about {format_duration(remaining)} left"
        if detail := self._detail():
            suffix += f" ({detail})"
        return f"{self.title}: {self.done:,}{share} after {format_duration(self._clock() - self._started)}{suffix}"


def format_duration(seconds: float) -> str:
    """Format seconds with at most two units.

    >>> format_duration(7384)
    '2 h 3 min'
    """
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    if rounded < 3600:
        return f"{rounded // 60} min {rounded % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def _bar(title: str, detail: Callable[[], str]) -> Iterator[ProgressUpdate]:
    # rich takes a tenth of a second to import, and nothing else in a stage without a terminal needs it.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class DetailColumn(ProgressColumn):
        """Shows the present detail at each refresh."""

        def render(self, task: Task) -> Text:
            return Text(detail())

    console = Console(stderr=True)
    # The other columns take about 35; a bar that is too long for the line would be drawn on a new line each time.
    bar_width = min(MAX_BAR_WIDTH, max(1, console.width - len(title) - 35 - (DETAIL_WIDTH if detail() else 0)))
    columns = (
        TextColumn(title),
        BarColumn(bar_width),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        DetailColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)
