"""What a stage reads and asks of the machine, in a real MLflow store."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from own_store import own_store

from longreward.tasks import tracking
from longreward.tasks.mlflow_samples import TableSample
from longreward.tasks.tracking import parent_run, stage_run, system_metrics
from longreward.tasks.tracking.history import read_artifact
from longreward.tasks.tracking.store import client


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowClient]:
    with own_store(tmp_path_factory.mktemp("store")):
        yield client()


def test_data_sets_are_inputs_with_hash_rows_and_columns_and_models_are_none(
    store: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("data/pairs").mkdir(parents=True)
    Path("data/pairs/pairs.jsonl").write_text('{"idx": 1, "query": "q", "margin": 0.5}\n{"idx": 2}\n')
    Path("data/pairs/readme.txt").write_text("pairs")
    tags = {
        "dvc.data/pairs/pairs.jsonl": "ab" * 16 + ".dir",
        "dvc.data/pairs": "cd" * 16 + ".dir",
        "dvc.models/sft": "x",
    }
    with parent_run("inputs", {}) as parent:
        monkeypatch.setenv(tracking.PARENT, parent)
        with stage_run("train", params={}, all_params={}, tags=tags) as run:
            pass
    inputs = {one.dataset.name: one for one in store.get_run(run.id).inputs.dataset_inputs}
    assert set(inputs) == {"data/pairs/pairs.jsonl", "data/pairs"}
    file = inputs["data/pairs/pairs.jsonl"]
    assert file.dataset.digest == "ab" * 16 + ".dir"
    assert json.loads(file.dataset.profile) == {"bytes": 51, "files": 1, "rows": 2}
    columns = json.loads(file.dataset.schema)["mlflow_colspec"]
    assert [column["name"] for column in columns] == ["idx", "query", "margin"]
    assert json.loads(inputs["data/pairs"].dataset.profile) == {"bytes": 56, "files": 2, "pairs.jsonl: rows": 2}
    assert [(tag.key, tag.value) for tag in file.tags] == [("mlflow.data.context", "training")]


def test_a_missing_or_broken_input_is_left_for_the_stage_to_complain_about(
    store: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("data").mkdir(exist_ok=True)
    Path("data/broken.jsonl").write_text("{no json\n")
    tags = {"dvc.data/broken.jsonl": "aa", "dvc.data/gone": "bb.dir"}
    with parent_run("broken", {}) as parent:
        monkeypatch.setenv(tracking.PARENT, parent)
        with stage_run("pair", params={}, all_params={}, tags=tags) as run:
            pass
    profiles = {one.dataset.name: one.dataset.profile for one in store.get_run(run.id).inputs.dataset_inputs}
    assert json.loads(profiles["data/broken.jsonl"]) == {"bytes": 9, "files": 1, "rows": 1}
    assert json.loads(profiles["data/gone"]) == {"bytes": 0, "files": 0}


@pytest.mark.parametrize(("switch", "measured"), [("true", True), ("false", False)])
def test_a_stage_that_takes_its_time_has_system_metrics_unless_they_are_turned_off(
    store: MlflowClient, monkeypatch: pytest.MonkeyPatch, switch: str, measured: bool
) -> None:
    monkeypatch.setattr(system_metrics, "DELAY_S", 0.01)
    monkeypatch.setenv(system_metrics.ENABLED, switch)
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    with parent_run("machine", {}) as parent:
        monkeypatch.setenv(tracking.PARENT, parent)
        with stage_run("train", params={}, all_params={}, tags={}) as run:
            until = time.monotonic() + (10 if measured else 0.5)
            while time.monotonic() < until and not store.get_run(run.id).data.metrics:
                time.sleep(0.05)
    metrics = store.get_run(run.id).data.metrics
    assert ("system/cpu_utilization_percentage" in metrics) is measured
    assert store.get_run(run.id).info.status == "FINISHED"


@pytest.mark.parametrize(("count", "rows"), [(3, [0, 1, 2]), (8, [0, 2, 4, 6]), (0, [])])
def test_a_sample_is_evenly_spaced_and_everything_passes(count: int, rows: list[int]) -> None:
    sample = TableSample(("number",), total=count, limit=4)
    assert list(sample.collect(range(count), lambda number: [number])) == list(range(count))
    assert sample.rows == [[number] for number in rows]
    assert sample.count == count


def test_a_table_is_shown_by_mlflow_and_the_page_says_how_much_of_it(
    store: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = TableSample(("id", "query"), total=2, limit=1)
    list(sample.collect(["a", "b"], lambda name: [name, "why?"]))
    with parent_run("tables", {}) as parent:
        monkeypatch.setenv(tracking.PARENT, parent)
        with stage_run("pair", params={}, all_params={}, tags={}) as run:
            sample.log(run, "pairs.json")
    tags = store.get_run(run.id).data.tags
    assert read_artifact(run.id, "pairs.json") == {"columns": ["id", "query"], "data": [["a", "why?"]]}
    assert json.loads(tags["mlflow.loggedArtifacts"]) == [{"path": "pairs.json", "type": "table"}]
    assert tags["mlflow.note.content"].startswith("`pairs.json` shows 1 of 2, evenly spaced")
