"""Color, width and errors on terminals and in pipes."""

import io
import os
import pty
from collections.abc import Iterator
from typing import IO

import pytest

from longreward.utils.console import PIPE_WIDTH, output_width, print_error, quiet_libraries, uses_color


@pytest.fixture
def terminal() -> Iterator[IO[str]]:
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as stream:
        yield stream
    os.close(master)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LONGREWARD_VERBOSE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def test_color_on_terminals_only(terminal: IO[str]) -> None:
    assert uses_color(terminal)
    assert not uses_color(io.StringIO())


def test_variables_of_color(terminal: IO[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert uses_color(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not uses_color(terminal)
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.delenv("FORCE_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not uses_color(terminal)


def test_width_in_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    assert output_width(io.StringIO()) == PIPE_WIDTH
    monkeypatch.setenv("COLUMNS", "60")
    assert output_width(io.StringIO()) == 60


def test_error_has_one_form(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    print_error("no such file")
    assert capsys.readouterr().err == "longreward: error: no such file\n"
    monkeypatch.setenv("FORCE_COLOR", "1")
    print_error("no such file")
    assert capsys.readouterr().err == "\033[31mlongreward: error:\033[0m no such file\n"


def test_quiet_libraries_keep_the_user_s_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "info")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "")  # restored at the end
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS")
    monkeypatch.setenv("LONGREWARD_VERBOSE", "1")
    quiet_libraries()
    assert "HF_HUB_DISABLE_PROGRESS_BARS" not in os.environ
    monkeypatch.setenv("LONGREWARD_VERBOSE", "0")
    quiet_libraries()
    assert os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] == "1"
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "info"
