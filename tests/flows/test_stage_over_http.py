"""Prompts, verdicts and data sets of a stage on a tracking server over HTTP."""

import json
from pathlib import Path

import mlflow
import pytest
from tracking_servers import mlflow_server

from longreward.judge.prompts import load_prompts
from longreward.records import Verdict
from longreward.tasks.tracking.prompt_registry import log_judge_prompts
from longreward.tasks.tracking.run import Span
from longreward.tasks.tracking.run_hierarchy import PARENT, link_stage, parent_run, stage_run
from longreward.tasks.tracking.store import client, experiment_id

pytestmark = pytest.mark.slow


def test_stage_on_tracking_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"id": "0", "margin": 2.5}\n')
    verdicts = {"helpfulness": Verdict(score=7.0, judge="gpt-test"), "logicality": Verdict(score=None, reason="cut")}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LONGREWARD_STATE", str(tmp_path / "state"))
    before = mlflow.get_tracking_uri()
    with mlflow_server(tmp_path / "server") as (uri, _):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        client.cache_clear()
        experiment_id.cache_clear()
        try:
            with parent_run("over-http", {}) as parent:
                monkeypatch.setenv(PARENT, parent)
                with stage_run("score", params={}, all_params={}, tags={}) as run:
                    log_judge_prompts(run, load_prompts(), ["zh"])
                    run.log_traces([Span("reward", {"query": "q"}, {"reward": None}, verdicts=verdicts)])
                    run.log_dataset("pairs", file, "training")
                    link_stage(parent, "score", {"score/reward": 7.0}, stage_run_id=run.id)
            recorded = client().get_run(parent)
            (trace,) = mlflow.search_traces(locations=[experiment_id()], return_type="list")
        finally:
            client.cache_clear()
            experiment_id.cache_clear()
            mlflow.set_tracking_uri(before)
    assert len(json.loads(recorded.data.tags["mlflow.linkedPrompts"])) == 6
    assert [entry.dataset.name for entry in recorded.inputs.dataset_inputs] == ["pairs"]
    values = {assessment.name: assessment.feedback.value for assessment in trace.info.assessments}
    assert values == {"helpfulness": 7.0, "logicality": None}
