"""`longreward doctor` on real projects, each with one problem, and on real servers of this machine."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from child_server import offline_judge_server
from filelock import FileLock
from prefect.settings import PREFECT_API_AUTH_STRING

from longreward.tasks.new_project import create_project, project_files
from longreward.tasks.processes import this_process

ROOT = Path(__file__).resolve().parents[3]
CODE = "import sys; from longreward.flows.cli.main import main; sys.exit(main())"
PREFIXES = ("GIT_", "LONGREWARD_", "DVC_", "MLFLOW_", "PREFECT_", "OPENAI_")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(PREFIXES)}
PYTHON_FIRST = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def doctor(folder: Path, *arguments: str, **environment: str) -> "tuple[int, str]":
    variables = {**ENVIRONMENT, "PYTHONPATH": str(ROOT), "PATH": PYTHON_FIRST, **environment}
    command = [sys.executable, "-P", "-c", CODE, "doctor", *arguments]
    result = subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.stderr == "", result.stderr
    return result.returncode, result.stdout


def check(cli: Any, folder: Path, *arguments: str, **environment: str) -> "tuple[int, str]":
    """Run `longreward doctor` in this process: only for checks that do not depend on Prefect's settings."""
    result = cli(folder, "doctor", *arguments, **{"PATH": PYTHON_FIRST, **environment})
    return result.returncode, result.stdout


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pristine") / "project"
    create_project(folder, project_files("laptop"))
    return folder


@pytest.fixture
def project(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "project"))


def test_new_project_has_no_problems(cli: Any, project: Path) -> None:
    code, output = check(cli, project, "--offline")
    assert code == 0, output
    assert "problems (✗): none" in output
    subjects = [line.split()[1] for line in output.splitlines() if line[0] in "✓!✗"]
    assert {"python", "packages", "git", "gpu", "memory", "disk", "graph", "data", "dvc", "state"} <= {*subjects}


def test_outside_project_only_machine_checked(tmp_path: Path) -> None:
    code, output = doctor(tmp_path)
    assert code == 0, output
    assert "only the machine was checked" in output
    assert list(tmp_path.iterdir()) == []


def test_offline_checks_import_no_heavy_library(project: Path) -> None:
    code = (
        "import sys; from longreward.flows.cli.main import main; main(['doctor', '--offline'])\n"
        "print([m for m in ('torch', 'transformers', 'prefect', 'mlflow', 'dvc') if m in sys.modules])"
    )
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT), "PATH": "/nowhere"}  # no nvidia-smi there, nor git
    result = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=project, env=environment, capture_output=True, text=True
    )
    assert result.stdout.splitlines()[-1] == "[]", result.stderr


def appended(name: str, text: str) -> Callable[[Path], None]:
    def change(project: Path) -> None:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        with (project / name).open("a") as file:
            file.write(text)

    return change


def emptied(name: str) -> Callable[[Path], None]:
    return lambda project: os.truncate(project / name, 0)


def removed(name: str) -> Callable[[Path], None]:
    return lambda project: shutil.rmtree(project / name)


def replaced(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(project: Path) -> None:
        text = (project / name).read_text(encoding="utf-8")
        assert old in text
        (project / name).write_text(text.replace(old, new), encoding="utf-8")

    return change


@pytest.mark.parametrize(
    ("change", "message", "advice"),
    [
        (replaced("params.yaml", "heldout_share", "heldout_shares"), "did you mean", "`longreward params`"),
        (
            replaced("params.yaml", "kind: offline", "kind: http\n  model: m\n  api_key_env: NO_SUCH_KEY"),
            "NO_SUCH_KEY",
            "correct params.yaml or the environment",
        ),
        (
            replaced(
                "dvc.yaml", "tiny-base\n    outs:\n      - data/prepared", "mine\n    outs:\n      - data/prepared"
            ),
            "models/mine is missing; it is a dependency of prepare",
            "restore it",
        ),
        (removed(".dvc"), "no DVC repository", "`dvc init`"),
        (appended("torch.py", ""), "torch.py shadows a package", "rename it"),
        (replaced("dvc.yaml", "  pair:", "  pairs:"), "dvc.yaml lacks pair", "new project"),
        (appended(".dvc/config.local", "[core]\n    remote = far\n"), "'far' has no address", "`dvc remote add far"),
        (emptied(".dvc/tmp/rwlock"), ".dvc/tmp/rwlock is empty", "`longreward run` repairs it"),
    ],
)
def test_problem_reported_with_advice(
    cli: Any, project: Path, change: Callable[[Path], None], message: str, advice: str
) -> None:
    change(project)
    code, output = check(cli, project, "--offline")
    lines = output.splitlines()
    index = next((n for n, line in enumerate(lines) if line.startswith("✗") and message in line), None)
    assert index is not None, output
    assert advice in lines[index + 1]
    assert (code, lines[-1][:15]) == (1, "problems (✗): 1"), output


OLLAMA = {"kind: offline": "kind: ollama\n  model: m"}


@pytest.mark.parametrize(
    ("changes", "recommended"),
    [
        ({"kind: offline": "kind: http\n  model: m\n  base_url: http://localhost:1/v1"}, True),
        ({}, False),
        ({"kind: offline": "kind: offline\n  dimensions: {faithfulness: {kind: ollama, model: m}}"}, True),
        (OLLAMA | {"\nscore:": "\nscore:\n  strategy: none", "\npair:": "\npair:\n  method: random"}, False),
        (
            OLLAMA | {"\nscore:": "\nscore:\n  retriever: {kind: http, model: e, base_url: http://localhost:1/v1}"},
            False,
        ),
        (OLLAMA | {"\nscore:": "\nscore:\n  retriever: {terms: ngrams}"}, True),
    ],
    ids=["http", "offline", "dimension", "no scores", "embeddings", "n-grams"],
)
def test_embeddings_are_recommended_for_real_judge_with_bm25(
    cli: Any, project: Path, changes: dict[str, str], recommended: bool
) -> None:
    for old, new in changes.items():
        replaced("params.yaml", old, new)(project)
    code, output = check(cli, project, "--offline")
    assert code == 0, output
    lines = output.splitlines()
    notes = [n for n, line in enumerate(lines) if line.startswith("! evidence") and "bm25" in line]
    assert len(notes) == recommended, output
    assert not notes or "score.retriever.kind to hybrid" in lines[notes[0] + 1]


def test_missing_raw_data_is_error_only_if_not_in_dvc(cli: Any, project: Path) -> None:
    shutil.rmtree(project / "data/raw")
    assert "a run restores it" in check(cli, project, "--offline")[1]
    (project / "data/raw.dvc").unlink()
    code, output = check(cli, project, "--offline")
    assert (code, "✗ data" in output) == (1, True)


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="takes a second disk")
def test_disk_of_dvc_cache_checked_if_separate(cli: Any, project: Path) -> None:
    appended(".dvc/config.local", "[cache]\n    dir = /dev/shm/longreward-no-such-folder\n")(project)
    assert "free for /dev/shm" in check(cli, project, "--offline")[1]


def test_unusable_state_folder_is_error(cli: Any, project: Path) -> None:
    code, output = check(cli, project, "--offline", LONGREWARD_STATE=str(project / "params.yaml"))
    assert (code, "✗ state" in output) == (1, True)


def test_package_outside_tested_range_reported_with_advice(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fastapi-9.9.dist-info").mkdir()
    (tmp_path / "fastapi-9.9.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: fastapi\nVersion: 9.9\n")
    monkeypatch.syspath_prepend(tmp_path)
    code, output = check(cli, tmp_path, "--offline")
    assert code == 1
    assert "fastapi 9.9 is outside the tested range <0.151,>=0.139" in output
    assert "pip install 'fastapi<0.151,>=0.139'" in output


def test_other_python_on_path_is_note(cli: Any, project: Path, tmp_path: Path) -> None:
    other = tmp_path / "bin/python"
    other.parent.mkdir()
    other.symlink_to(sys.executable)
    code, output = check(cli, project, "--offline", PATH=f"{other.parent}{os.pathsep}{PYTHON_FIRST}")
    assert (code, f"`python` on PATH is {other}" in output) == (0, True), output


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("NVIDIA H200, 143771, 143000, 9.0", "NVIDIA H200, 140 of 140 GiB free, bfloat16"),
        ("Tesla T4, 15360, 15000, 7.5", "15 of 15 GiB free, no bfloat16"),
        ("NVIDIA A100, 81920, 2048, 8.0", "`nvidia-smi` shows which processes use it"),
    ],
)
@pytest.mark.skipif(not version("torch").endswith("+cpu"), reason="torch here may find a real GPU")
def test_gpu_listed_with_memory_and_incompatible_torch(cli: Any, tmp_path: Path, row: str, expected: str) -> None:
    smi = tmp_path / "bin/nvidia-smi"
    smi.parent.mkdir()
    smi.write_text(f"#!/bin/sh\necho '{row}'\n")
    smi.chmod(0o755)
    code, output = check(cli, tmp_path, "--offline", PATH=f"{smi.parent}{os.pathsep}{PYTHON_FIRST}")
    assert (code, expected in output) == (0, True), output
    assert "is a CPU build" in output


def test_running_pipeline_and_leftovers_of_runs_are_notes(cli: Any, project: Path) -> None:
    state = project / ".longreward"
    for folder in ("locks", "experiments/old", "queue", "prefect/open-runs"):
        (state / folder).mkdir(parents=True)
    for number, name in ((10, "later"), (9, "brave-otter")):
        (state / f"queue/{number:09d}.{this_process()}").write_text(f'{{"name": "{name}", "experiment": false}}')
    (state / "prefect/open-runs/00000000-0000-0000-0000-000000000000.1-0.00").touch()
    with FileLock(state / "locks/pipeline.lock"):
        code, output = check(cli, project, "--offline")
    runs = f"a pipeline is running: brave-otter (process {os.getpid()}); waiting: later (process {os.getpid()})"
    assert (code, runs in output) == (0, True), output
    assert "experiments: 1" in output
    assert "killed processes that Prefect shows as running: 1" in output


@pytest.mark.slow
def test_prefect_server_and_login_of_profile_used(project: Path, prefect_server: str, tmp_path: Path) -> None:
    # Not in the environment: `prefect profile use` creates such a file.
    (tmp_path / "profiles.toml").write_text(
        f'active = "far"\n[profiles.far]\nPREFECT_API_URL = "{prefect_server}"\n'
        f'PREFECT_API_AUTH_STRING = "{PREFECT_API_AUTH_STRING.value()}"\n'
    )
    code, output = doctor(project, PREFECT_PROFILES_PATH=str(tmp_path / "profiles.toml"))
    assert (code, f"✓ prefect       {prefect_server} answers" in output) == (0, True), output


@pytest.mark.slow
def test_http_judge_gets_one_request(project: Path) -> None:
    with offline_judge_server() as url:
        replaced("params.yaml", "kind: offline", f"kind: http\n  model: m\n  base_url: {url}")(project)
        code, output = doctor(project)
    assert code == 0, output
    assert [line for line in output.splitlines() if line.startswith("✓ judge") and "answered" in line]


@pytest.mark.slow
def test_dvc_remote_in_folder_checked(project: Path, tmp_path: Path) -> None:
    remote = f"[core]\n    remote = r\n['remote \"r\"']\n    url = {tmp_path / 'remote'}\n"
    (project / ".dvc/config.local").write_text(remote)
    assert "the remote r answers" in doctor(project)[1]
