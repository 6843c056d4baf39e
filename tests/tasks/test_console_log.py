"""Which log records the console shows, and in which form."""

import logging

import pytest

from longreward.tasks.console_log import UI_ONLY, ConsoleHandler


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch) -> ConsoleHandler:
    """The handler of the stage `score`."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    return ConsoleHandler("score")


def record(name: str, level: int, message: str, *, path: str = __file__, **extra: object) -> logging.LogRecord:
    log_record = logging.LogRecord(name, level, path, 1, message, (), None)
    log_record.__dict__.update(extra)
    return log_record


def shown(handler: ConsoleHandler, records: list[logging.LogRecord], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines on stderr, without their times."""
    for entry in records:
        handler.handle(entry)
    return [line[10:] for line in capsys.readouterr().err.splitlines()]


def test_own_lines_have_the_stage_and_the_level(handler: ConsoleHandler, capsys: pytest.CaptureFixture[str]) -> None:
    records = [
        record("longreward.judge", logging.INFO, "3 replies"),
        record("prefect.flow_runs", logging.WARNING, "1 response is unscored"),
        record("longreward.judge", logging.ERROR, "no reply"),
    ]
    expected = ["score: 3 replies", "score: warning: 1 response is unscored", "score: error: no reply"]
    assert shown(handler, records, capsys) == expected


def test_progress_has_the_stage_once(handler: ConsoleHandler, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["score: 12 of 40", "score, documents: 1 of 9", "scores are saved"]
    records = [record("longreward.utils.progress", logging.INFO, line) for line in lines]
    assert shown(handler, records, capsys) == [*lines[:2], "score: scores are saved"]


def test_lines_of_libraries_are_hidden_unless_errors(
    handler: ConsoleHandler, capsys: pytest.CaptureFixture[str]
) -> None:
    import prefect

    records = [
        record("mlflow.store", logging.WARNING, "creates tables"),
        record("prefect.flow_runs", logging.INFO, "Beginning flow run", path=str(prefect.__file__)),
        record("alembic.runtime", logging.INFO, "Running upgrade"),
        record("longreward.flows.pipeline", logging.ERROR, "printed at the end of the run", **UI_ONLY),
        record("mlflow.store", logging.ERROR, "the store is gone"),
    ]
    assert shown(handler, records, capsys) == ["score: error: the store is gone"]


def test_color_on_request(
    handler: ConsoleHandler, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    records = [record("longreward.judge", logging.WARNING, "slow"), record("longreward.judge", logging.INFO, "fast")]
    assert shown(handler, records, capsys) == ["score: \033[33mwarning: \033[0mslow", "score: fast"]
