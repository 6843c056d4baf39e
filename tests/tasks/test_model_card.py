"""Model cards: the metadata of the Hugging Face hub, settings, data, measures with intervals, limits."""

import re
from pathlib import Path

import pytest
import yaml
from mlflow_store import mlflow_store

from longreward.evaluation.config import EvaluateConfig
from longreward.evaluation.measures import AnswerMeasures
from longreward.evaluation.report import Evaluation, summarize
from longreward.params import Params
from longreward.records import Response
from longreward.tasks.model_card import model_card, without_metadata
from longreward.tasks.tracking.registry import register
from longreward.tasks.tracking.run_hierarchy import parent_run
from longreward.tasks.tracking.store import client

PARAMS = Params.parse(
    {"policy": {"base_model": "org/base-8b"}, "train": {"learning_rate": 1e-6, "beta": 0.15}, "judge": {}},
    source="test",
)


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    """Return the evaluation of 30 documents on which the DPO model is exactly right and the SFT model never."""
    measures = [
        AnswerMeasures(
            role=role,
            decoding="greedy",
            response=Response(id=f"{n}-0", example_id=str(n), query="q", text="a", tokens=5),
            document_id=str(n),
            values={"exact": float(role == "dpo"), "reward": 8.0 if role == "dpo" else 6.0},
        )
        for n in range(30)
        for role in ("sft", "dpo")
    ]
    return summarize(EvaluateConfig(temperatures=(0.0,), bootstrap_resamples=200), measures)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    pairs = {"path": "data/pairs", "md5": "5f2d.dir"}
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {"pair": {"outs": [pairs]}}}))
    return tmp_path


def metadata(card: str) -> dict[str, object]:
    _, front, _ = card.split("---\n", 2)
    loaded = yaml.safe_load(front)
    assert isinstance(loaded, dict)
    return loaded


def test_card_after_training(project: Path) -> None:
    card = model_card(PARAMS, training={"steps": 57, "loss": 0.41237, "rewards/accuracies": 0.75, "seconds": 91.0})
    assert metadata(card) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": "org/base-8b",
        "tags": ["longreward", "dpo", "trl", "long-context"],
    }
    assert "| learning_rate | `1e-06` |" in card
    assert "At the end of the training: steps 57, loss 0.4124, rewards/accuracies 0.75." in card
    assert "91" not in card  # the same training gives the same card
    assert "| `data/pairs` | `5f2d.dir` |" in card
    assert "`data/evaluation/model_card.md` is this card with the evaluation" in card
    assert "A rule-based judge" in card


def test_card_with_evaluation(project: Path, evaluation: Evaluation) -> None:
    card = model_card(PARAMS, evaluation=evaluation, judge="gpt-test")
    assert re.search(
        r"\| greedy \| exact \| 0.000 \| 1.000 \| \+1.000 \| \[\+0.\d{3}, \+1.000\] \|.*\| better \|", card
    )
    assert "The measures are of 30 held-out documents" in card
    assert "scores of `gpt-test`, as those that made the pairs" in card
    (index,) = metadata(card)["model-index"]
    metrics = {metric["type"]: metric["value"] for metric in index["results"][0]["metrics"]}
    assert (metrics["exact/greedy"], metrics["reward/greedy"]) == (1.0, 8.0)


def test_local_base_model_is_no_name_on_the_hub(project: Path) -> None:
    (project / "models/base").mkdir(parents=True)
    params = PARAMS.model_copy(update={"policy": PARAMS.policy.model_copy(update={"base_model": "models/base"})})
    card = model_card(params)
    assert "base_model" not in metadata(card)
    assert "- base model: `models/base`" in card


def test_registered_version_shows_the_card(project: Path, evaluation: Evaluation) -> None:
    card = without_metadata(model_card(PARAMS, evaluation=evaluation, judge="gpt-test"))
    with mlflow_store(project), parent_run("registry", {}) as run:
        arguments = {"source_hash": "aa.dir", "path": Path("models/dpo"), "champion": True}
        register("policy", run, card=card, **arguments)
        long = register("policy", run, card=card + "\n\nmore" * 2000, **arguments)
        first = client().get_model_version("policy", "1").description
        cut = client().get_model_version("policy", long).description
        model = client().get_registered_model("policy").description
    assert first.startswith(
        "`dvc checkout models/dpo` at the commit of its run restores the files.\n\n# A long-context"
    )
    assert "| greedy | exact | 0.000 | 1.000 | +1.000 |" in first
    assert len(cut) <= 5000
    assert "`model_card.md`, among the run's artifacts, has all of it" in cut
    assert "`champion`" in model
