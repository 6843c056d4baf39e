import json

import pytest
from preference_pairs import make_pair

from longreward.data.formats import write_pairs
from longreward.errors import PolicyError
from longreward.flows.cli.main import main
from longreward.models.config import PolicyConfig
from longreward.records import PreferencePair
from longreward.training.dpo import TrainConfig, train_dpo
from longreward.training.estimate import training_estimate
from longreward.training.estimate.memory import Device


def town_pair(number: int) -> PreferencePair:
    context, query = "the town is north of the river .", "where is the town ?"
    return make_pair(number, "it is north .", "it is south of the town .", context=context, query=query)


@pytest.fixture
def files(tmp_path, tiny_policy):
    write_pairs(tmp_path / "pairs.jsonl", [town_pair(1), town_pair(2)])
    (tmp_path / "params.yaml").write_text(f"policy: {{base_model: {tiny_policy}}}\n")
    return tmp_path


def preflight(files, *options: str) -> int:
    arguments = ["--params", str(files / "params.yaml"), "--data", str(files / "pairs.jsonl"), "--device", "cpu:1GB"]
    return main(["preflight", "--model", str(files / "model"), *arguments, *options])


@pytest.fixture
def model(files, tiny_policy):
    """The config and the tokenizer, without the weights."""
    (files / "model").mkdir()
    for file in tiny_policy.iterdir():
        if file.suffix != ".safetensors":
            (files / "model" / file.name).write_bytes(file.read_bytes())


@pytest.mark.usefixtures("model")
def test_lengths_and_memory_estimated_without_weights(files, capsys):
    assert preflight(files, "-S", "train.batch_size=2", "-S", "train.max_steps=7") == 0
    out = capsys.readouterr().out
    # <s> <|user|> the town is north of the river . where is the town ? <|assistant|>; it is south of the town . </s>
    assert "2 pairs, nothing is cut at max_length 256" in out
    assert "prompt    median 16, p95 16, longest 16" in out
    assert "chosen    median 5" in out
    assert "rejected  median 8" in out
    assert "2 rows of 29 tokens on average (prefix sharing is on)" in out
    assert "cpu:1GB has 1.0 GB" in out
    assert "7 steps" in out


@pytest.mark.usefixtures("model")
def test_json_output(files, capsys):
    assert preflight(files, "--json") == 0
    metrics = json.loads(capsys.readouterr().out)
    assert (metrics["tokens_per_row"], metrics["steps"]) == (29, 1)
    parameters = 37 * 64 + 2 * (3_072 + 6_144 + 64) + 32
    assert metrics["fixed_bytes"] == 16 * parameters < metrics["peak_bytes"]


@pytest.mark.usefixtures("model")
def test_training_that_does_not_fit_is_error_with_advice(files, capsys):
    assert preflight(files, "--device", "cpu:0.0001GB") == 1
    out, err = capsys.readouterr()
    assert "peak memory" in out
    assert "cannot fit" in err
    assert "lora: {r: 16}" in err


def test_training_that_does_not_fit_fails_before_loading_weights(files, model, monkeypatch):
    monkeypatch.setattr(training_estimate, "local_device", lambda policy: Device("cuda", True, 1e5))
    with pytest.raises(PolicyError, match="cannot fit"):
        train_dpo(
            TrainConfig(),
            PolicyConfig(base_model="unused"),
            sft_model=str(files / "model"),
            pairs=files / "pairs.jsonl",
            out=files / "out",
            state=files / "state",
        )


def test_pairs_share_prompts_under_autocast(files, tiny_policy):
    report = train_dpo(
        TrainConfig(bf16=True, prefix_sharing="on", batch_size=2, max_steps=1, log_steps=1),
        PolicyConfig(base_model="unused", device="cpu"),
        sft_model=str(tiny_policy),
        pairs=files / "pairs.jsonl",
        out=files / "out",
        state=files / "state",
    )
    assert report.steps == 1
    assert 0.5 < report.last["loss"] < 2.0
