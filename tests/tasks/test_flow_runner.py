"""The lines of Prefect that the log of a run keeps."""

import logging

import pytest
from prefect._internal.concurrency import logger as services

from longreward.tasks.flow_runner import configure_logging


@pytest.mark.parametrize(
    ("logger", "level", "message", "kept"),
    [
        ("prefect.task_runs", logging.INFO, "Finished in state Completed()", False),
        ("prefect.task_runs", logging.INFO, "Finished in state Cancelled()", True),
        ("prefect.task_runs", logging.ERROR, "Finished in state Failed('no judge')", False),
        ("prefect.task_runs", logging.ERROR, "Task run failed with exception", True),
        ("prefect.task_runs", logging.INFO, "Retry 1/2 will start 10 seconds from now", True),
        ("prefect.flow_runs", logging.INFO, "Finished in state Completed('score done in 3.2 s')", True),
    ],
)
def test_log_filter_drops_repetitions_only(logger: str, level: int, message: str, kept: bool) -> None:
    configure_logging()
    record = logging.LogRecord(logger, level, __file__, 1, message, (), None)
    assert bool(logging.getLogger(logger).filter(record)) is kept


def test_undelivered_events_dropped_and_warnings_logged_once() -> None:
    configure_logging()
    lost = logging.LogRecord("x", logging.ERROR, __file__, 1, "Service %r failed to process item %r", (1, 2), None)
    other = logging.LogRecord("x", logging.ERROR, __file__, 1, "Service %r ended", (1,), None)
    assert [bool(services.filter(record)) for record in (lost, other)] == [False, True]
    away = logging.LogRecord("events", logging.WARNING, __file__, 1, "Unable to connect", (), None)
    assert [bool(logging.getLogger("prefect.events.clients").filter(away)) for _ in range(3)] == [True, False, False]
