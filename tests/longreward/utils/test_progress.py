"""Progress of long work, without a terminal."""

import logging
import threading
from contextvars import ContextVar

import pytest

from longreward.utils.progress import ProgressEstimate, format_duration, show_progress


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class LineCollector(logging.Handler):
    """Collects log lines; a test waits for their number, not for time to pass."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.runs: list[str] = []
        self.condition = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self.condition:
            self.lines.append(record.getMessage())
            self.runs.append(RUN.get())
            self.condition.notify_all()

    def wait_for(self, count: int) -> None:
        with self.condition:
            assert self.condition.wait_for(lambda: len(self.lines) >= count, timeout=60)


RUN: ContextVar[str] = ContextVar("RUN", default="none")


@pytest.fixture
def lines() -> "LineCollector":
    handler, logger = LineCollector(), logging.getLogger("longreward.utils.progress")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_line_with_done_total_elapsed_and_remaining_time() -> None:
    clock = FakeClock()
    estimate = ProgressEstimate("score", clock=clock)
    estimate.update(0, 2000)
    clock.now += 180
    estimate.update(120, 2000)
    assert str(estimate) == "score: 120 of 2,000 (6%) after 3 min 0 s, about 47 min 0 s left"


def test_items_of_earlier_process_do_not_count_towards_speed() -> None:
    clock = FakeClock()
    estimate = ProgressEstimate("train, steps", clock=clock)
    clock.now += 50  # loading the model
    estimate.update(150, 189)  # the checkpoint
    clock.now += 20
    estimate.update(152, 189)
    assert estimate.remaining_s == 370  # 37 steps of 10 s
    assert str(estimate) == "train, steps: 152 of 189 (80%) after 1 min 10 s, about 6 min 10 s left"


def test_remaining_time_grows_while_nothing_finishes() -> None:
    clock = FakeClock()
    estimate = ProgressEstimate("score", clock=clock)
    estimate.update(0, 10)
    clock.now += 10
    estimate.update(5, 10)
    assert estimate.remaining_s == 10
    clock.now += 30
    assert estimate.remaining_s == 40


def test_no_remaining_time_without_total_or_first_item() -> None:
    clock = FakeClock()
    estimate = ProgressEstimate("prepare, records", clock=clock)
    assert str(estimate) == "prepare, records: 0 after 0 s"
    estimate.update(0, 7)
    clock.now += 61
    assert str(estimate) == "prepare, records: 0 of 7 (0%) after 1 min 1 s"
    estimate.update(1500, None)
    assert str(estimate) == "prepare, records: 1,500 after 1 min 1 s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.44, "0.44 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (3599.4, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (90_000, "25 h 0 min"),
    ],
)
def test_format_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_lines_logged_regularly_until_end(lines: LineCollector) -> None:
    with show_progress("score", log_interval_s=0.001) as update:
        update(3, 40)
        lines.wait_for(len(lines.lines) + 2)  # the next one may have been formatted before the update
    assert lines.lines[-1].startswith("score: 3 of 40 (8%) after ")
    assert not [thread for thread in threading.enumerate() if thread.name == "progress of score"]


def test_lines_have_detail_before_first_item(lines: LineCollector) -> None:
    requests = iter(range(1, 1_000_000))
    with show_progress("score", log_interval_s=0.001, detail=lambda: f"{next(requests)} requests") as update:
        update(0, 40)
        lines.wait_for(len(lines.lines) + 3)
    first, last = lines.lines[0], lines.lines[-1]
    assert last.startswith("score: 0 of 40 (0%) after ")
    assert last.endswith(" requests)")
    assert first != last


def test_lines_logged_in_context_of_caller(lines: LineCollector) -> None:
    """Prefect finds the run of a log line in context variables."""
    token = RUN.set("stage run")
    try:
        with show_progress("score", log_interval_s=0.001):
            lines.wait_for(1)
    finally:
        RUN.reset(token)
    assert lines.runs[0] == "stage run"


def test_disabled_progress_logs_nothing(lines: LineCollector) -> None:
    before = threading.active_count()
    with show_progress("train, steps", enabled=False, log_interval_s=0.001) as update:
        update(1, 2)
        assert threading.active_count() == before
    assert lines.lines == []
