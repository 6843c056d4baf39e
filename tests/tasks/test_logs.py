"""Which of Prefect's own lines a run's log keeps."""

import logging

import pytest

from tasks.logs import settle_logs


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
def test_only_repetitions_are_dropped(logger: str, level: int, message: str, kept: bool) -> None:
    settle_logs()
    record = logging.LogRecord(logger, level, __file__, 1, message, (), None)
    assert bool(logging.getLogger(logger).filter(record)) is kept
