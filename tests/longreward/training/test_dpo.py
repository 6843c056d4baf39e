import json
import math
from pathlib import Path

import pytest
import torch
from preference_pairs import make_pair
from tiny_sizes import FAST_TRAINING
from trl.trainer import dpo_trainer as dpo_trainer_module

from longreward.data.formats import write_pairs
from longreward.errors import PolicyError
from longreward.models.config import PolicyConfig
from longreward.models.policy import load_policy
from longreward.training import run, trainers
from longreward.training.config import LoraSettings
from longreward.training.dpo import TrainConfig, loss_arguments, train_dpo
from longreward.training.prefix.row_prefixes import RowPrefixes
from longreward.training.training_data import tokenize_pairs

PAIRS = [
    make_pair(
        1,
        "it is north .",
        "it is south of the town .",
        context="the town is north of the river .",
        query="where is the town ?",
    ),
    make_pair(2, "anna is the mayor .", "ben .", context="anna is the mayor and ben was it .", query="who is mayor ?"),
]
FAST = TrainConfig(
    learning_rate=5e-3,
    max_steps=8,
    batch_size=2,
    **FAST_TRAINING,
    save_steps=3,
)


class Training:
    def __init__(self, folder: Path, base: Path):
        self.base, self.out, self.state, self.pairs = base, folder / "dpo", folder / "state", folder / "pairs.jsonl"
        self.metrics: list[dict[str, float]] = []
        write_pairs(self.pairs, PAIRS)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self.metrics.append(metrics)

    def run(self, log=None, **changes):
        return train_dpo(
            FAST.model_copy(update=changes),
            PolicyConfig(base_model="unused"),
            sft_model=str(self.base),
            pairs=self.pairs,
            out=self.out,
            state=self.state,
            log=log or self.log,
        )


@pytest.fixture
def training(tmp_path, tiny_policy):
    return Training(tmp_path, tiny_policy)


@pytest.fixture
def policy(tiny_policy):
    return load_policy(PolicyConfig(base_model=str(tiny_policy)), tiny_policy)


def log_probability(policy, item, response) -> tuple[float, int]:
    """Return the log-probability of an answer with its end token, and its number of tokens, from one forward pass."""
    prompt = policy.encoder.prompt_ids(item.context, item.query)
    answer = policy.encoder.completion_ids(response.text)
    with torch.no_grad():
        log_probs = policy.model(torch.tensor([prompt + answer])).logits[0].log_softmax(dim=-1)
    return sum(float(log_probs[len(prompt) + k - 1, token]) for k, token in enumerate(answer)), len(answer)


def make_trainer(policy, reference_file: Path, tmp_path: Path, *, share: bool = False):
    rows = tokenize_pairs(policy.encoder, PAIRS, max_length=64)
    arguments = run.trainer_arguments(FAST, policy, state=tmp_path / "run", max_length=64, bf16=False)
    return trainers.dpo_trainer(
        policy,
        rows.rows,
        None,
        arguments | loss_arguments(FAST),
        ce_weight=FAST.ce_weight,
        reference_file=reference_file,
        prefixes=RowPrefixes.of_rows(rows.rows) if share else None,
    )


@pytest.mark.parametrize("share", [False, True], ids=["texts", "shared-prefix"])
def test_loss_equals_formula_of_paper(policy, tmp_path, share):
    sums = [(log_probability(policy, p, p.chosen), log_probability(policy, p, p.rejected)) for p in PAIRS]
    # A reference that is another model: 2 and 1 below the policy on the first pair, 3 above and equal on the second.
    offsets = [(-2.0, -1.0), (3.0, 0.0)]
    reference = {
        "ref_chosen_logps": [sums[k][0][0] + offsets[k][0] for k in range(2)],
        "ref_rejected_logps": [sums[k][1][0] + offsets[k][1] for k in range(2)],
    }
    reference_file = tmp_path / "reference.json"
    reference_file.write_text(json.dumps(reference))
    trainer = make_trainer(policy, reference_file, tmp_path, share=share)
    margins = [2.0 - 1.0, -3.0 - 0.0]
    expected = [
        math.log1p(math.exp(-0.15 * margin)) + 0.1 * (-chosen / tokens)
        for margin, ((chosen, tokens), _) in zip(margins, sums, strict=True)
    ]
    assert sums[0][0][1] != sums[1][0][1]  # the mean over all tokens would differ
    for indices in ([0], [1], [0, 1]):
        batch = trainer._prepare_inputs(trainer.data_collator([trainer.train_dataset[index] for index in indices]))
        loss = trainer.compute_loss(trainer.model, batch).item()
        assert loss == pytest.approx(sum(expected[index] for index in indices) / len(indices), rel=1e-4)


@pytest.mark.parametrize("share", [False, True], ids=["texts", "shared-prefix"])
def test_reference_is_sft_model(policy, tmp_path, share):
    expected = [(log_probability(policy, p, p.chosen)[0], log_probability(policy, p, p.rejected)[0]) for p in PAIRS]
    reference_file = tmp_path / "reference.json"
    make_trainer(policy, reference_file, tmp_path, share=share)
    result = json.loads(reference_file.read_text())
    assert result["ref_chosen_logps"] == pytest.approx([chosen for chosen, _ in expected], rel=1e-4)
    assert result["ref_rejected_logps"] == pytest.approx([rejected for _, rejected in expected], rel=1e-4)


def test_weights_are_not_hashed(policy, tmp_path, monkeypatch):
    def hash_module(module):
        raise AssertionError("TRL hashes all weights")

    monkeypatch.setattr(dpo_trainer_module, "hash_module", hash_module)
    make_trainer(policy, tmp_path / "reference.json", tmp_path)
    assert dpo_trainer_module.hash_module is hash_module


def test_first_loss_has_zero_margin(training, policy):
    training.run(max_steps=1)
    nll = [-log_probability(policy, p, p.chosen)[0] / log_probability(policy, p, p.chosen)[1] for p in PAIRS]
    assert training.metrics[0]["loss"] == pytest.approx(math.log(2) + 0.1 * sum(nll) / 2, rel=1e-4)
    assert training.metrics[0]["rewards/margins"] == pytest.approx(0, abs=1e-4)


def test_training_learns_to_prefer_chosen_responses(training, policy):
    report = training.run()
    assert len(training.metrics) == report.steps == 8
    assert training.metrics[-1]["loss"] < training.metrics[0]["loss"]
    assert training.metrics[-1]["rewards/margins"] > 0.2
    assert training.metrics[-1]["rewards/accuracies"] == 1.0
    trained = load_policy(PolicyConfig(base_model="unused"), training.out)
    for p in PAIRS:
        before = log_probability(policy, p, p.chosen)[0] - log_probability(policy, p, p.rejected)[0]
        after = log_probability(trained, p, p.chosen)[0] - log_probability(trained, p, p.rejected)[0]
        assert after > before


def test_resumed_training_keeps_reference(training):
    def stop(step: int, metrics: dict[str, float]) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.run(log=stop)
    [reference_file] = training.state.glob("*/reference.json")
    before = reference_file.read_text()
    logged = []
    report = training.run(log=lambda step, metrics: logged.append((step, reference_file.read_text() == before)))
    assert (report.resumed_from, report.steps) == (3, 8)
    assert logged == [(step, True) for step in range(1, 9)]  # the curve is whole


def test_adapter_merged_and_saved_separately(training, policy):
    training.run(lora=LoraSettings(r=4, alpha=8), learning_rate=0.05)
    assert (training.out / "adapter" / "adapter_model.safetensors").is_file()
    trained = load_policy(PolicyConfig(base_model="unused"), training.out)
    assert log_probability(trained, PAIRS[0], PAIRS[0].chosen) != log_probability(policy, PAIRS[0], PAIRS[0].chosen)
    assert training.metrics[-1]["rewards/margins"] > 0.2


def test_pair_that_does_not_fit_fails_before_first_step(training):
    with pytest.raises(PolicyError, match="pair 1"):
        training.run(max_length=20)
    assert not training.out.exists()
    assert not training.state.exists()


def test_defaults_equal_paper():
    assert (TrainConfig().beta, TrainConfig().ce_weight, TrainConfig().learning_rate) == (0.15, 0.1, 1e-6)
