"""`longreward distill` on the score files of a run: a model, a report, an MLflow run; nothing is trained twice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from prefect.settings import PREFECT_API_AUTH_STRING

from longreward.data.formats import write_examples, write_scored
from longreward.flows.cli.main import main
from longreward.records import DIMENSIONS, Example, Response, ScoredResponse, Verdict
from longreward.tasks.prefect_server import PrefectServer

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("anna", "ben", "cara")
PARAMS = """
policy: {base_model: base, dtype: float32}
distill: {max_steps: 4, batch_size: 2, bf16: false, gradient_checkpointing: false, log_steps: 1, heldout_share: 0.4}
"""


@pytest.fixture
def project(tmp_path: Path, save_tiny_policy) -> Path:
    save_tiny_policy(tmp_path / "base")
    (tmp_path / "params.yaml").write_text(PARAMS)
    examples, scored = [], []
    for number in range(5):
        example = Example(
            id=str(number), document_id=f"d{number}", context=f"{NAMES[number % 3]} built it .", query="who built it ?"
        )
        examples.append(example)
        for n, name in enumerate(NAMES):
            response = Response(id=f"{number}-{n}", example_id=example.id, query=example.query, text=f"{name} built it")
            verdict = Verdict(score=9.0 if name in example.context else 2.0 + n)
            scored.append(ScoredResponse(response=response, verdicts=dict.fromkeys(DIMENSIONS, verdict)))
    write_examples(tmp_path / "data/prepared/preference.jsonl", examples)
    write_scored(tmp_path / "data/scored/scored_responses.jsonl", scored)
    (tmp_path / "data/scored/unscored_responses.jsonl").touch()
    return tmp_path


def distill(folder: Path, server: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("LONGREWARD_", "MLFLOW_", "DVC_", "GIT_"))}
    own = {**PrefectServer(server, PREFECT_API_AUTH_STRING.value()).environment, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", "-m", "longreward.flows.cli.main", "distill", *arguments]
    return subprocess.run(
        command, cwd=folder, env=inherited | own, capture_output=True, text=True, timeout=400, check=False
    )


def test_trains_tests_and_logs_once(project: Path, prefect_server: str) -> None:
    first = distill(project, prefect_server)
    assert first.returncode == 0, first.stdout + first.stderr
    assert (
        "Trained on the judge's scores of 9 responses to 3 prompts about 3 documents; held out are 6 responses to 2"
        in first.stdout
    )
    model = project / "models/reward"
    agreements = json.loads((model / "heldout.json").read_text())
    assert [(one["labels"], one["reward"]) for one in agreements] == [
        ("judge", "reward model"),
        ("judge", "length only"),
    ]
    assert agreements[0]["pairs"]["documents"] == 2
    assert "| reward model |" in (model / "README.md").read_text()
    client = MlflowClient(f"sqlite:///{project}/.longreward/mlflow.db")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    [run] = client.search_runs(experiments)
    assert (run.info.run_name, run.info.status) == ("distill", "FINISHED")
    assert run.data.metrics["judge/reward_model/pairs"] == agreements[0]["pairs"]["value"]
    assert run.data.metrics["judge/length_only/pairs_low"] == agreements[1]["pairs"]["low"]
    assert run.data.params["distill.max_steps"] == "4"
    assert [point.step for point in client.get_metric_history(run.info.run_id, "loss")] == [1, 2, 3, 4]
    written = (model / "model.safetensors").stat().st_mtime_ns

    again = distill(project, prefect_server)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "it is only tested again" in again.stdout + again.stderr
    assert (model / "model.safetensors").stat().st_mtime_ns == written
    assert len(client.search_runs(experiments)) == 1

    other = distill(project, prefect_server, "-S", "distill.seed=1", "--out", "models/other")
    assert other.returncode == 0, other.stdout + other.stderr
    assert len(client.search_runs(experiments)) == 2


def test_missing_scores_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["distill"]) == 1
    assert "data/scored/scored_responses.jsonl does not exist: run the stages up to score" in capsys.readouterr().err


def test_gold_labels_need_gold_facts(project: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(project)
    assert main(["distill", "-S", "distill.labels=gold"]) == 1
    assert "distill.labels is gold: name the file of gold facts with --gold" in capsys.readouterr().err
