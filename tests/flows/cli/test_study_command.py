"""`longreward study` in a project as `longreward init` makes it: real runs, few steps."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from prefect.settings import PREFECT_API_AUTH_STRING

from longreward.tasks.new_project import create_project, project_files
from longreward.tasks.prefect_server import PrefectServer

ROOT = Path(__file__).resolve().parents[3]
CODE = "import sys; from longreward.flows.cli.main import main; sys.exit(main())"
SMALL = (
    "sft.max_steps=1",
    "train.max_steps=1",
    "sample.n=2",
    "sample.max_new_tokens=8",
    "pair.min_scored=2",
    "score.strategy=none",
    "evaluate.short={source: builtin, count: 12}",
    "evaluate.samples=1",
)


def study(folder: Path, server: str, *arguments: str) -> str:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("LONGREWARD_", "MLFLOW_", "DVC_", "GIT_"))}
    own = {
        **PrefectServer(server, PREFECT_API_AUTH_STRING.value()).environment,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    settings = [word for setting in SMALL for word in ("-S", setting)]
    done = subprocess.run(
        [sys.executable, "-P", "-c", CODE, "study", "--seeds", "3", *arguments, *settings],
        cwd=folder,
        env=inherited | own,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_study_runs_missing_cells_and_reports_all(tmp_path: Path, prefect_server: str) -> None:
    folder = tmp_path / "project"
    create_project(folder, project_files("laptop"))
    study(folder, prefect_server, "--arms", "random")
    first = (folder / "data/study/study.md").read_text(encoding="utf-8")
    assert "| random | chance |" in first
    assert "contrast" not in first

    both = ("--arms", "contrast", "random")
    listed = study(folder, prefect_server, *both, "--list")
    assert "2 runs, 1 of them finished" in listed
    assert "missing  study-contrast-s3" in listed
    assert "finished study-random-s3" in listed

    study(folder, prefect_server, *both)
    page = (folder / "data/study/study.md").read_text(encoding="utf-8")
    assert "Seeds: 3." in page
    assert page.count("| contrast | ") == 3  # its pairs, and its means at both decodings
    assert "| arm | reward | faithfulness | completeness | short | tokens |" in page

    store = MlflowClient(f"sqlite:///{folder / '.longreward/mlflow.db'}")
    experiment = store.get_experiment_by_name("longreward").experiment_id
    [parent] = store.search_runs([experiment], "tags.`longreward.study` = 'study'")
    children = store.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert {run.info.run_name for run in children} == {"study-random-s3", "study-contrast-s3"}
    assert parent.data.metrics["contrast/tokens/greedy"] > 0
    assert {file.path for file in store.list_artifacts(parent.info.run_id)} == {"study.md", "figures"}
