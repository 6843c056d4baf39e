"""Runs with their own settings: each becomes a DVC experiment and leaves the checkout unchanged."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from toy_project import ToyProject

from longreward.errors import ConfigError
from longreward.tasks.experiments import check_name


@pytest.fixture
def project(tmp_path: Path, prefect_server: str) -> ToyProject:
    project = ToyProject(tmp_path, prefect_server)
    project.write("ab")
    return project


def read_experiment(project: ToyProject, name: str) -> dict[str, object]:
    """Return the data of an experiment in `dvc exp show`."""
    command = [sys.executable, "-m", "dvc", "exp", "show", "--json"]
    output = subprocess.run(command, cwd=project.folder, check=True, capture_output=True, text=True).stdout
    for commit in json.loads(output):
        for experiment in commit.get("experiments") or ():
            if experiment["name"] == name:
                data: dict[str, object] = experiment["revs"][0]["data"]
                return data
    raise AssertionError(f"no experiment {name} in {output}")


def test_overrides_apply_to_one_run(project: ToyProject) -> None:
    project.environment["MLFLOW_TRACKING_URI"] = "sqlite:///.longreward/own/runs.db"  # in no copy
    project.commit()
    before = project.checkout()
    code, output = project.run("longreward.flows.cli.main", "run", "-S", "pair.min_scored=4", "--name", "four")
    assert code == 0, output
    assert project.checkout() == before

    data = read_experiment(project, "four")
    assert data["params"]["params.yaml"]["data"]["pair"] == {"min_scored": 4}  # type: ignore[index]
    assert data["metrics"]["metrics/pair.json"]["data"] == {"pair/pairs": 2}  # type: ignore[index]
    assert "Flow run 'four'" in output
    store = MlflowClient(f"sqlite:///{project.folder / '.longreward/own/runs.db'}")
    runs = store.search_runs([store.get_experiment_by_name("longreward").experiment_id])
    (parent,) = [run for run in runs if run.info.run_name == "four"]
    (pair,) = [run for run in runs if run.info.run_name == "pair"]
    assert Path(store.download_artifacts(pair.info.run_id, "pair.txt")).read_text() == "twice"
    assert parent.info.status == "FINISHED"
    assert parent.data.params["pair.min_scored"] == "4"
    assert parent.data.tags["longreward.overrides"] == "pair.min_scored=4"
    assert not (project.folder / ".longreward/experiments").exists()
    worktrees = subprocess.run(["git", "worktree", "list"], cwd=project.folder, capture_output=True, text=True).stdout
    assert len(worktrees.splitlines()) == 1

    code, output = project.run("longreward.flows.cli.main", "run", "-S", "pair.min_scored=3", "--name", "four")
    assert code == 1
    assert "there is an experiment 'four' already" in output


@pytest.mark.slow
def test_experiment_includes_uncommitted_changes_and_uses_cache(project: ToyProject) -> None:
    project.commit()
    assert project.pipeline()[0] == 0
    project.write("abc")
    params = project.folder / "params.yaml"
    params.write_text("# mine\n" + params.read_text().replace("pair: {}", "pair: {min_margin: 1} # a margin"))
    before = project.checkout()
    code, output = project.run("longreward.flows.cli.main", "run", "-S", "pair.min_scored=4", "--name", "new")
    assert code == 0, output
    assert project.checkout() == before
    assert read_experiment(project, "new")["metrics"]["metrics/pair.json"]["data"] == {"pair/pairs": 2}  # type: ignore[index]

    code, output = project.run(
        "longreward.flows.cli.main", "run", "--stages", "pair", "-S", "pair.min_scored=3", "--name", "newer"
    )
    assert code == 0, output
    subprocess.run([sys.executable, "-m", "dvc", "exp", "apply", "new"], cwd=project.folder, check=True)
    text = params.read_text()
    assert text.startswith("# mine\n")
    assert text.rstrip().endswith("# a margin")
    assert yaml.safe_load(text)["pair"] == {"min_margin": 1, "min_scored": 4}


@pytest.mark.slow
def test_private_copy_links_ignored_model(project: ToyProject) -> None:
    (project.folder / ".gitignore").write_text("/.longreward/\n/mine/\n")
    (project.folder / "mine").mkdir()
    (project.folder / "mine/config.json").write_text("{}")
    (project.folder / "toy.py").write_text(
        (project.folder / "toy.py")
        .read_text()
        .replace('"""Letters, one a shard."""', 'assert Path("mine/config.json").exists()')
    )
    project.commit()
    code, output = project.run("longreward.flows.cli.main", "run", "-S", "policy.base_model=mine")
    assert code == 0, output


@pytest.mark.slow
def test_experiment_of_some_stages_applies_before_the_others_run(project: ToyProject) -> None:
    project.commit()
    code, output = project.pipeline("--stages", "prepare", "-S", "pair.min_scored=4", "--name", "part")
    assert code == 0, output
    assert "it has no outputs of pair: `dvc exp apply` brings the others, then reports these as an error" in output
    code, output = project.run("dvc", "exp", "apply", "part")
    assert code == 255
    assert "data/pairs" in output
    assert (project.folder / "data/prepared/text").read_text() == "AB"
    assert yaml.safe_load((project.folder / "params.yaml").read_text())["pair"] == {"min_scored": 4}
    code, output = project.pipeline()
    assert code == 0, output
    assert (project.folder / "data/pairs").exists()
    assert "prepare done" not in output


def test_invalid_override(project: ToyProject) -> None:
    project.commit()
    code, output = project.run("longreward.flows.cli.main", "run", "-S", "pair.min_scord=4")
    assert code == 1
    assert "pair.min_scord: unknown key; did you mean pair.min_scored?" in output
    code, output = project.run("longreward.flows.cli.main", "run", "-S", "pair.min_scored=1")
    assert code == 1
    assert "pair.min_scored: Input should be greater than or equal to 2 (is 1)" in output
    assert not (project.folder / ".longreward").exists()


def test_experiment_without_commit(project: ToyProject) -> None:
    code, output = project.run("longreward.flows.cli.main", "run", "-S", "pair.min_scored=4")
    assert code == 1
    assert "`git commit` the project first" in output


@pytest.mark.parametrize("name", ["two words", "a..b", "x.lock", "-a", "a/b", ""])
def test_invalid_experiment_name(name: str) -> None:
    with pytest.raises(ConfigError, match="use letters, digits"):
        check_name(name)
