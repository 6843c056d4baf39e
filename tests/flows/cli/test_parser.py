"""The argument parser: the version, names that do not exist, the form of errors, and what they do not import."""

import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from longreward.flows.cli.main import main

ROOT = Path(__file__).resolve().parents[3]


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["--version"])
    assert exit_info.value.code == 0
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert capsys.readouterr().out == f"longreward {version}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rn",), "unknown command 'rn'; did you mean run? The commands are init, doctor, "),
        (("qqqq",), "unknown command 'qqqq'; the commands are init, doctor, "),
        (("--verson",), "unknown option '--verson'; did you mean --version? (see `longreward --help`)"),
        (("run", "--stges", "score"), "unknown option '--stges'; did you mean --stages? (see `longreward run --help`)"),
        (("run", "--nme=x"), "unknown option '--nme'; did you mean --name?"),
        (("plan", "--stage", "scroe"), "unknown --stage value 'scroe'; did you mean score?"),
        (
            ("ledger", "stat"),
            "unknown command 'stat'; did you mean stats? The commands are stats, merge, export, verify",
        ),
        (("compare", "a", "b", "c"), "unknown argument 'c' (see `longreward compare --help`)"),
        (("compare", "a"), "the following arguments are required: B (see `longreward compare --help`)"),
        (("compare", "a", "b", "--top", "-1"), "argument --top: -1 is not at least 0"),
    ],
)
def test_wrong_arguments(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    output = capsys.readouterr()
    assert exit_info.value.code == 2
    assert output.err.startswith(f"longreward: error: {message}")
    assert (output.err.count("\n"), output.out) == (1, "")


@pytest.mark.parametrize("command", ["run --stages scor", "run --stage scor", "run --stages sample scor"])
def test_unknown_stage(cli: Any, tmp_path: Path, command: str) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {sample: {cmd: sample}, score: {cmd: score}}\n")
    result = cli(tmp_path, *command.split())
    assert result.returncode == 2
    expected = "longreward: error: unknown stage 'scor'; did you mean score? The stages are sample, score\n"
    assert result.stderr == expected


def test_unknown_arm_of_study(cli: Any, tmp_path: Path) -> None:
    result = cli(tmp_path, "study", "--arms", "longrewrd")
    assert result.returncode == 2
    assert result.stderr.startswith("longreward: error: unknown arm 'longrewrd'; did you mean longreward?")


def test_wrong_names_import_no_heavy_library(tmp_path: Path) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {sample: {cmd: sample}, score: {cmd: score}}\n")
    heavy = ("dvc", "mlflow", "numpy", "prefect", "pydantic", "torch", "transformers")
    code = (
        "import sys; from longreward.flows.cli.main import main\n"
        "for arguments in (['rn'], ['run', '--stages', 'scor'], ['--version']):\n"
        "    try: main(arguments)\n"
        "    except SystemExit: pass\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
    assert result.stderr.count("did you mean") == 2


@pytest.mark.parametrize("arguments", [("-v", "params"), ("params", "-v"), ("params",)])
def test_verbose_before_and_after_the_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    for name in ("LONGREWARD_VERBOSE", "TRANSFORMERS_VERBOSITY"):
        monkeypatch.setenv(name, "")  # also restored at the end, as `main` sets them
        monkeypatch.delenv(name)
    assert main(arguments) == 0
    is_verbose = "-v" in arguments
    assert os.environ.get("LONGREWARD_VERBOSE") == ("1" if is_verbose else None)
    assert os.environ.get("TRANSFORMERS_VERBOSITY") == (None if is_verbose else "error")


def test_help_fits_60_columns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit):
        main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60
    assert "    run          run the pipeline, optionally with" in lines


def test_example_of_help_can_be_pasted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit):
        main(["score", "--help"])
    command = capsys.readouterr().out.partition("example: ")[2]
    assert max(map(len, command.splitlines())) <= 60
    assert command.count("\\\n") == 4
    arguments = shlex.split(command)
    assert arguments[:4] == ["longreward", "score", "--data", "sft.jsonl"]
    assert arguments[-2:] == ["-S", "judge.model=my-judge"]
