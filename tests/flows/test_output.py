"""What `longreward run` shows: in a pipe and on a terminal, without the messages of the libraries that it uses."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from toy_project import ToyProject

RUN = [sys.executable, "-m", "longreward.flows.cli.main", "run"]
TIME = r"\d\d:\d\d:\d\d  "


@pytest.fixture
def project(tmp_path: Path, prefect_server: str) -> ToyProject:
    project = ToyProject(tmp_path, prefect_server)
    for name in ("LONGREWARD_VERBOSE", "COLUMNS", "NO_COLOR", "FORCE_COLOR"):
        project.environment.pop(name, None)
    return project


def run_in_terminal(project: ToyProject, *, columns: int, **environment: str) -> str:
    """Return everything that a run writes to a terminal of this width."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {**project.environment, "TERM": "xterm-256color", **environment}
    process = subprocess.Popen(RUN, cwd=project.folder, env=environment, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    output = b""
    while True:
        try:
            data = os.read(master, 2**16)
        except OSError:  # how Linux reports that no process has the terminal open any more
            break
        if not data:
            break
        output += data
    os.close(master)
    process.wait()
    return output.decode()


def test_output_in_pipe(project: ToyProject) -> None:
    project.write("ab")
    code, output = project.pipeline()
    assert code == 0, output
    log, _, summary = output.partition("\nTime\n")
    patterns = [
        TIME + r"run \S+ starts; `longreward serve` in another terminal shows it",
        TIME + r"data/raw is recorded in DVC \(data/raw\.dvc\)",
        TIME + r"stage 1 of 2: prepare done in .* s \(pairs 2\)",
        TIME + "pair: the library speaks",
        TIME + r"stage 2 of 2: pair done in .* s \(pairs 2\)",
    ]
    lines = log.splitlines()
    assert len(lines) == len(patterns), log
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line)
    assert "longreward compare" not in summary  # there is no earlier run
    assert "longreward view" not in summary  # the toy project has no responses to show
    assert "\033" not in output
    assert "\r" not in output


def test_error_is_shown_once(project: ToyProject) -> None:
    project.write("bad")
    code, output = project.pipeline()
    assert code == 1
    assert output.splitlines()[-1] == ("longreward: error: stage prepare failed: the text is bad; write another one")
    assert output.count("write another one") == 1
    assert "Traceback" not in output


@pytest.mark.slow
def test_output_on_terminal(project: ToyProject) -> None:
    project.write("ab")
    output = run_in_terminal(project, columns=60)
    assert "stage 2 of 2: pair done in" in output
    for text in (
        "Beginning flow run",
        "Running stage",
        "Collecting files",
        "Checking cache",
        "Traceback",
    ):  # Prefect's, DVC's
        assert text not in output
    assert "\033[1m" in output  # the summary has bold titles

    again = run_in_terminal(project, columns=60, NO_COLOR="1")
    assert "every stage is up to date" in " ".join(again.split())
    assert not re.search(r"\033\[[0-9;]*3[0-7]", again)
