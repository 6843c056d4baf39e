"""Notes, parameters, data sets and system metrics of a run, in a real MLflow store."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow_store import mlflow_store

from longreward.tasks.tracking import system_metrics
from longreward.tasks.tracking.run import MAX_NOTE, MAX_PARAM, Run, shorten_note
from longreward.tasks.tracking.run_hierarchy import PARENT, parent_run, stage_run
from longreward.tasks.tracking.store import client


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowClient]:
    with mlflow_store(tmp_path_factory.mktemp("store")):
        yield client()


def read_note(store: MlflowClient, run: str) -> str:
    return str(store.get_run(run).data.tags["mlflow.note.content"])


def read_artifact(store: MlflowClient, run: str, name: str) -> str:
    return Path(store.download_artifacts(run, name)).read_text()


def test_limits_match_mlflow(store: MlflowClient) -> None:
    with parent_run("limits", {}) as run:
        for length in (MAX_NOTE, MAX_NOTE + 1):
            store.set_tag(run, str(length), "x" * length)
        for length in (MAX_PARAM, MAX_PARAM + 1):
            store.log_param(run, str(length), "x" * length)
    data = store.get_run(run).data
    assert [len(data.tags[str(length)]) for length in (MAX_NOTE, MAX_NOTE + 1)] == [MAX_NOTE] * 2
    assert [len(data.params[str(length)]) for length in (MAX_PARAM, MAX_PARAM + 1)] == [MAX_PARAM] * 2


def test_long_report_cut_at_section(store: MlflowClient) -> None:
    sections = [f"## Part {number}\n\n" + f"row {number}\n" * 300 for number in range(9)]
    report = "\n".join(sections)
    with parent_run("report", {}) as parent:
        run = Run(parent)
        run.log_report("report.md", report)
        assert read_artifact(store, parent, "report.md") == report
        beginning, _, notice = read_note(store, parent).partition("\n\n… ")
        assert notice == "The note is too long for MLflow: `report.md`, among the run's artifacts, has all of it."
        assert beginning == "\n".join(sections[:4]).rstrip()  # 1,812 characters each

        run.log_report("note.md", "short")
        assert read_note(store, parent) == "short"
        run.log_report("note.md", report)
        assert "`note.md`" in read_note(store, parent)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("a\n\n" * 3 + "b" * 20_000, "b"),  # no border but far above
        ("intro\n\n" + "| row |\n" * 3000, "| row |"),
        ("# Title\n" + "word word.\n\n" * 1500, "word word."),
        ("```\n" + "line\n" * 4000 + "```", "line\n```"),
    ],
)
def test_long_note_without_sections(text: str, end: str) -> None:
    note = shorten_note(text, "note.md")
    beginning = note.partition("\n\n… ")[0]
    assert MAX_NOTE - 150 < len(note) <= MAX_NOTE
    assert beginning.endswith(end)
    assert text.startswith(beginning.removesuffix("\n```"))


def test_note_at_limit(store: MlflowClient) -> None:
    assert shorten_note("x" * MAX_NOTE, "note.md") == "x" * MAX_NOTE


def test_long_params_logged_as_file(store: MlflowClient) -> None:
    settings = {"prepare": {"sources": ["a" * 40] * 200}, "train": {"beta": 0.15}}
    with parent_run("settings", settings) as run:
        assert json.loads(read_artifact(store, run, "settings.json")) == settings
        assert store.get_run(run).data.params["train.beta"] == "0.15"


def test_log_inputs(store: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("data/pairs").mkdir(parents=True)
    Path("data/pairs/pairs.jsonl").write_text('{"idx": 1, "query": "q", "margin": 0.5}\n{"idx": 2}\n')
    Path("data/pairs/readme.txt").write_text("pairs")
    tags = {
        "dvc.data/pairs/pairs.jsonl": "ab" * 16 + ".dir",
        "dvc.data/pairs": "cd" * 16 + ".dir",
        "dvc.models/sft": "x",
    }
    with parent_run("inputs", {}) as parent:
        monkeypatch.setenv(PARENT, parent)
        with stage_run("train", params={}, all_params={}, tags=tags) as run:
            pass
    inputs = {entry.dataset.name: entry for entry in store.get_run(run.id).inputs.dataset_inputs}
    assert set(inputs) == {"data/pairs/pairs.jsonl", "data/pairs"}
    file = inputs["data/pairs/pairs.jsonl"]
    assert file.dataset.digest == "ab" * 16 + ".dir"
    assert json.loads(file.dataset.profile) == {"bytes": 51, "files": 1, "rows": 2}
    columns = json.loads(file.dataset.schema)["mlflow_colspec"]
    assert [column["name"] for column in columns] == ["idx", "query", "margin"]
    assert json.loads(inputs["data/pairs"].dataset.profile) == {"bytes": 56, "files": 2, "pairs.jsonl: rows": 2}
    assert [(tag.key, tag.value) for tag in file.tags] == [("mlflow.data.context", "training")]


def test_log_inputs_missing_or_malformed_file(store: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("data").mkdir(exist_ok=True)
    Path("data/broken.jsonl").write_text("{no json\n")
    tags = {"dvc.data/broken.jsonl": "aa", "dvc.data/gone": "bb.dir"}
    with parent_run("broken", {}) as parent:
        monkeypatch.setenv(PARENT, parent)
        with stage_run("pair", params={}, all_params={}, tags=tags) as run:
            pass
    profiles = {entry.dataset.name: entry.dataset.profile for entry in store.get_run(run.id).inputs.dataset_inputs}
    assert json.loads(profiles["data/broken.jsonl"]) == {"bytes": 9, "files": 1, "rows": 1}
    assert json.loads(profiles["data/gone"]) == {"bytes": 0, "files": 0}


@pytest.mark.parametrize(("switch", "measured"), [("true", True), ("false", False)])
def test_system_metrics_on_and_off(
    store: MlflowClient, monkeypatch: pytest.MonkeyPatch, switch: str, measured: bool
) -> None:
    monkeypatch.setattr(system_metrics, "DELAY_S", 0.01)
    monkeypatch.setenv(system_metrics.ENABLED, switch)
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    with parent_run("machine", {}) as parent:
        monkeypatch.setenv(PARENT, parent)
        with stage_run("train", params={}, all_params={}, tags={}) as run:
            deadline = time.monotonic() + (10 if measured else 0.5)
            while time.monotonic() < deadline and not store.get_run(run.id).data.metrics:
                time.sleep(0.05)
    metrics = store.get_run(run.id).data.metrics
    assert ("system/cpu_utilization_percentage" in metrics) is measured
    assert store.get_run(run.id).info.status == "FINISHED"
