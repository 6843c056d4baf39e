"""Given preference pairs: the stages before `train` pass them on and create none."""

import json
from pathlib import Path

import pytest
from toy_project import ROOT, ToyProject

from longreward.data.formats import read_pairs

CHATS = [
    {
        "prompt": f"Where is {n}?",
        "chosen": [{"role": "user", "content": f"Where is {n}?"}, {"role": "assistant", "content": f"North {n}."}],
        "rejected": [{"role": "user", "content": f"Where is {n}?"}, {"role": "assistant", "content": "Who?"}],
    }
    for n in range(6)
]
SETTINGS = f"""
policy: {{base_model: {ROOT / "models/tiny-base"}, sft_model: {ROOT / "models/tiny-base"}, dtype: float32}}
prepare: {{source: data/raw/text.jsonl, preference_share: 0, pairs: {{source: data/raw/pairs.jsonl}}}}
pair: {{method: given}}
train:
  {{max_steps: 2, batch_size: 2, micro_batch: 1, bf16: false, gradient_checkpointing: false, learning_rate: 1.0e-4}}
evaluate: {{gold: null, champion: {{measure: reward}}}}
"""


@pytest.fixture
def project(tmp_path: Path, prefect_server: str) -> ToyProject:
    project = ToyProject(tmp_path, prefect_server)
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "params.yaml").write_text(SETTINGS, encoding="utf-8")
    examples = [{"idx": n, "query": f"Who is {n}?", "context": f"Text {n}.", "answer": "Me."} for n in range(40)]
    project.write("".join(json.dumps(row) + "\n" for row in examples))
    (tmp_path / "data/raw/pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CHATS))
    return project


@pytest.mark.slow
def test_training_on_given_pairs(project: ToyProject) -> None:
    for stage in ("prepare", "sft", "sample", "score", "pair", "train"):
        code, output = project.run(f"flows.{stage}")
        assert code == 0, output
    assert project.report("prepare").metrics["pairs"] == 6
    assert project.report("sample").metrics["responses"] == 0
    sampled = [*(project.folder / "data/sampled").iterdir(), *(project.folder / "data/scored").iterdir()]
    assert len(sampled) == 4
    assert {file.stat().st_size for file in sampled} == {0}
    pairs = list(read_pairs(project.folder / "data/pairs/preference_pairs.jsonl"))
    assert [(pair.query, pair.chosen.text) for pair in pairs] == [(f"Where is {n}?", f"North {n}.") for n in range(6)]
    assert project.report("pair").metrics["pairs"] == 6
    (run,) = project.store.search_runs(
        [project.store.get_experiment_by_name("longreward").experiment_id],
        f"attributes.run_id = '{project.report('pair').mlflow_run}'",
    )
    assert run.data.tags["pair.method"] == "given"
    assert (project.folder / "models/dpo").is_dir()
