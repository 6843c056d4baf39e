"""The command line in this process, which saves the seconds that a new process needs for its imports."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from longreward.flows.cli.main import main

VARIABLE_PREFIXES = ("GIT_", "LONGREWARD_", "DVC_", "MLFLOW_", "PREFECT_", "OPENAI_")


@dataclass(frozen=True)
class Result:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run `longreward` in a folder, with environment variables as keyword arguments."""

    def run(folder: Path, *arguments: str, **environment: str) -> Result:
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            for name in os.environ:
                if name.startswith(VARIABLE_PREFIXES):
                    patch.delenv(name)
            for name, value in environment.items():
                patch.setenv(name, value)
            capsys.readouterr()
            before = dict(os.environ)
            try:
                code = main(arguments)
            finally:  # `main` silences libraries by variables
                os.environ.clear()
                os.environ.update(before)
        output = capsys.readouterr()
        return Result(code, output.out, output.err)

    return run
