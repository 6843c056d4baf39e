"""Runs in a real MLflow store."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow_store import mlflow_store

from longreward.tasks.processes import this_process
from longreward.tasks.tracking.registry import register
from longreward.tasks.tracking.run import Run, create_run
from longreward.tasks.tracking.run_hierarchy import (
    PARENT,
    close_killed_runs,
    link_stage,
    log_model_run,
    parent_run,
    stage_run,
)
from longreward.tasks.tracking.store import has_experiment, store_uri

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowClient]:
    """Create one store for all tests here: creating its tables takes seconds."""
    with mlflow_store(tmp_path_factory.mktemp("store")):
        yield MlflowClient(store_uri())


def open_stage_run(stage: str, **tags: str) -> Any:
    return stage_run(stage, params={stage: {"n": 2}}, all_params={stage: {"n": 2}, "judge": {"kind": "x"}}, tags=tags)


def test_stage_run_params_metrics_and_tags(store: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with parent_run("brave-otter", {"score": {"n": 2, "champion": {"measure": "recall"}}}) as parent:
        monkeypatch.setenv(PARENT, parent)
        with open_stage_run("score", **{"dvc.data/raw": "abc.dir"}) as run:
            run.log_metrics({"reward": 7.5})
            run.set_tags({"judge": "offline"})
            link_stage(parent, "score", {"score/reward": 7.5}, stage_run_id=run.id)

    stage_record, parent_record = store.get_run(run.id), store.get_run(parent)
    assert stage_record.info.status == parent_record.info.status == "FINISHED"
    assert stage_record.data.params == {"score.n": "2"}
    assert stage_record.data.metrics == {"reward": 7.5}
    assert stage_record.data.tags["mlflow.parentRunId"] == parent
    assert (stage_record.data.tags["dvc.data/raw"], stage_record.data.tags["judge"]) == ("abc.dir", "offline")
    assert parent_record.info.run_name == "brave-otter"
    assert parent_record.data.params == {"score.n": "2", "score.champion.measure": "recall"}
    assert parent_record.data.metrics == {"score/reward": 7.5}
    assert parent_record.data.tags["mlflow.longreward.stage.score"] == run.id
    assert parent_record.data.tags["judge"] == "offline"
    shown = {tag for tag in parent_record.data.tags if not tag.startswith("mlflow.")}
    assert shown - {"longreward.uncommitted"} == {"judge", "longreward.host", "longreward.owner"}


def test_pipeline_run_shows_pairs_and_evaluation_set(
    store: MlflowClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"id": "0", "margin": 2.5}\n{"id": "1", "margin": 3.0}\n')
    with parent_run("first", {}) as first:
        monkeypatch.setenv(PARENT, first)
        with open_stage_run("pair", **{"dvc.data/scored": "ab.dir"}) as run:
            run.log_dataset("pairs", file, "training")
            link_stage(first, "pair", {}, stage_run_id=run.id)
    with parent_run("second", {}) as second:  # DVC found the stage up to date
        link_stage(second, "pair", {}, stage_run_id=run.id)
        link_stage(second, "score", {}, stage_run_id="unknown")
    for parent in (first, second):
        (entry,) = store.get_run(parent).inputs.dataset_inputs  # not data/scored, which says nothing new
        assert (entry.dataset.name, entry.dataset.digest) == ("pairs", "70c68366911233d0000b867121bcd9df")
        assert json.loads(entry.dataset.profile) == {"bytes": 54, "files": 1, "rows": 2}
        assert [(tag.key, tag.value) for tag in entry.tags] == [("mlflow.data.context", "training")]


def test_log_step_keeps_every_point(store: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with parent_run("curve", {}) as parent:
        monkeypatch.setenv(PARENT, parent)
        with open_stage_run("train") as run:
            for step in range(1200):
                run.log_step(step, {"loss": 1 / (step + 1)})
    history = store.get_metric_history(run.id, "loss")
    assert [(point.step, point.value) for point in history] == [(step, 1 / (step + 1)) for step in range(1200)]


def test_status_of_failed_stopped_and_killed_stages(store: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with parent_run("troubles", {}) as parent:
        monkeypatch.setenv(PARENT, parent)
        with pytest.raises(ValueError), open_stage_run("sft") as failed:
            raise ValueError
        with pytest.raises(KeyboardInterrupt), open_stage_run("sft") as stopped:
            raise KeyboardInterrupt
        left_open = Run(create_run("sft", parent=parent, tags={"longreward.stage": "sft"}))
        running = Run(create_run("sample", parent=parent, tags={"longreward.stage": "sample"}))
        with open_stage_run("sft") as good:
            pass
        statuses = [store.get_run(run.id).info.status for run in (failed, stopped, left_open, running, good)]
        assert statuses == ["FAILED", "KILLED", "KILLED", "RUNNING", "FINISHED"]
    assert store.get_run(running.id).info.status == "KILLED"  # an experiment that ends leaves nothing open


def test_parent_run_closes_killed_runs(store: MlflowClient) -> None:
    dead_process = {"longreward.host": platform.node(), "longreward.owner": "1-0.00"}
    abandoned = Run(create_run("killed", parent=None, tags=dead_process))
    stage = Run(create_run("train", parent=abandoned.id, tags={"longreward.stage": "train"}))
    elsewhere = Run(create_run("elsewhere", parent=None, tags={**dead_process, "longreward.host": "another-machine"}))
    with parent_run("next", {}) as first, parent_run("beside it", {}):
        statuses = [store.get_run(id_).info.status for id_ in (abandoned.id, stage.id, elsewhere.id, first)]
    assert statuses == ["KILLED", "KILLED", "RUNNING", "RUNNING"]


def test_close_killed_runs_keeps_running_ones(store: MlflowClient) -> None:
    host, dead_process, alive = platform.node(), "1-0.00", str(this_process())
    study = create_run(
        "study",
        parent=None,
        tags={"longreward.study_host": host, "longreward.owner": dead_process, "longreward.study": "s"},
    )
    pipeline = create_run("pipeline", parent=study, tags={"longreward.host": host, "longreward.owner": alive})
    killed = create_run("killed", parent=study, tags={"longreward.host": host, "longreward.owner": dead_process})
    evaluate = create_run("evaluate", parent=killed, tags={"longreward.stage": "evaluate"})
    model = create_run("dpo", parent=evaluate, tags={"longreward.role": "dpo"})
    at_work = create_run("train", parent=pipeline, tags={"longreward.stage": "train"})
    assert sorted(close_killed_runs()) == ["dpo", "evaluate", "killed", "study"]
    statuses = {run: store.get_run(run).info.status for run in (study, pipeline, killed, evaluate, model, at_work)}
    assert [run for run, status in statuses.items() if status == "RUNNING"] == [pipeline, at_work]
    assert close_killed_runs() == []
    for run in (pipeline, at_work):
        store.set_terminated(run)


def test_has_experiment_creates_no_store(tmp_path: Path) -> None:
    with mlflow_store(tmp_path):
        Path("state/mlflow.db").unlink()
        assert has_experiment() is False
        assert list(tmp_path.glob("**/*.db")) == []
        with parent_run("otter", {}):
            assert has_experiment() is True


def test_log_model_run(store: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with parent_run("models", {}) as parent:
        monkeypatch.setenv(PARENT, parent)
        with open_stage_run("evaluate") as run:
            ids = [
                log_model_run(run, role, {"recall/t1": value}, tags={}) for role, value in (("sft", 0.4), ("dpo", 0.9))
            ]
    runs = [store.get_run(id_) for id_ in ids]
    assert [run_info.data.tags["longreward.role"] for run_info in runs] == ["sft", "dpo"]
    assert [run_info.data.metrics for run_info in runs] == [{"recall/t1": 0.4}, {"recall/t1": 0.9}]
    assert {run_info.data.tags["mlflow.parentRunId"] for run_info in runs} == {run.id}


def test_register_moves_alias_for_champions_only(store: MlflowClient) -> None:
    with parent_run("registry", {}) as run:
        first = register("policy", run, source_hash="aa.dir", path=Path("models/dpo"), champion=True)
        second = register("policy", run, source_hash="bb.dir", path=Path("models/dpo"), champion=False)
    assert (first, second) == ("1", "2")
    champion = store.get_model_version_by_alias("policy", "champion")
    assert (str(champion.version), champion.source, champion.tags["dvc.md5"]) == ("1", "dvc://md5/aa.dir", "aa.dir")
    register("policy", run, source_hash="cc.dir", path=Path("models/dpo"), champion=True)
    assert store.get_model_version_by_alias("policy", "champion").source == "dvc://md5/cc.dir"


RACE = """
import os, sys
from longreward.tasks.tracking.run_hierarchy import find_or_create_parent
print(find_or_create_parent({"sft": {"n": 1}}))
"""


def test_concurrent_stages_of_dvc_repro_share_parent(tmp_path: Path) -> None:
    (tmp_path / "race.py").write_text(RACE)
    (tmp_path / "dvc").write_text(
        "import subprocess, sys\n"
        "command = [sys.executable, 'race.py']\n"
        "racing = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]\n"
        "print(*(one.communicate()[0].strip() for one in racing))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LONGREWARD_STATE": str(tmp_path / "state")}
    environment.pop(PARENT, None)
    environment.pop("MLFLOW_TRACKING_URI", None)

    def run() -> list[str]:
        done = subprocess.run([sys.executable, "dvc"], cwd=tmp_path, env=environment, capture_output=True, text=True)
        return done.stdout.split()

    first, second = run()
    assert first == second
    assert run()[0] != first  # another command, another experiment
