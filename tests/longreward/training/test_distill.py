"""A tiny model learns from pairs of scores; the result is a folder that `load_reward_model` reads."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_sizes import FAST_TRAINING
from transformers import AutoModelForSequenceClassification

from longreward.errors import DataError, PolicyError
from longreward.models.config import PolicyConfig
from longreward.models.policy import Policy, load_tokenizer
from longreward.records import Example, Response
from longreward.reward.reward_model import RewardModelConfig, load_reward_model
from longreward.reward.reward_model_input import InputEncoder
from longreward.training import run, trainers
from longreward.training.config import LoraSettings
from longreward.training.distill import (
    DistillConfig,
    load_classifier,
    tokenize_score_pairs,
    train_reward_model,
    trained_key,
)
from longreward.training.score_pairs import ScoredPrompt

POLICY = PolicyConfig(base_model="unused")
CONFIG = DistillConfig(
    learning_rate=5e-3,
    max_steps=12,
    batch_size=4,
    micro_batch=2,
    **FAST_TRAINING,
    save_steps=5,
    max_length=48,
)
# Responses with the first name of their document have a score of 9, others of 2.
NAMES = ("anna", "ben", "cara")


def make_prompt(number: int) -> ScoredPrompt:
    name = NAMES[number % 3]
    example = Example(
        id=str(number), document_id=str(number), context=f"{name} built the bridge in 1901 .", query="who built it ?"
    )
    texts = [f"{other} built it" for other in NAMES]
    responses = tuple(
        Response(id=f"{number}-{n}", example_id=example.id, query=example.query, text=text)
        for n, text in enumerate(texts)
    )
    return ScoredPrompt(example, responses, tuple((9.0, 9.0) if name in text else (2.0, 2.0) for text in texts))


PROMPTS = [make_prompt(number) for number in range(9)]


def load_base(path: Path, *, training: bool) -> Policy:
    return load_classifier(POLICY, str(path), load_tokenizer(POLICY, path), training=training)


def train(folder: Path, base: Path, log_step: Any = None, *, query: str = "who built it ?", **changes: Any) -> Any:
    return train_reward_model(
        CONFIG.model_copy(update=changes),
        POLICY,
        [ScoredPrompt(p.example.model_copy(update={"query": query}), p.responses, p.bounds) for p in PROMPTS],
        base=str(base),
        out=folder / "reward",
        state=folder / "state",
        key="k1",
        log_step=log_step,
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = AutoModelForSequenceClassification.from_pretrained(folder / "reward").state_dict()
    return state


def test_trained_model_prefers_higher_scores(tiny_policy: Path, tmp_path: Path) -> None:
    metrics: list[dict[str, float]] = []
    report = train(tmp_path, tiny_policy, lambda step, values: metrics.append(values), max_steps=40)
    assert report.metrics()["examples"] == 18  # two worse responses to each prompt
    assert metrics[-1]["loss"] < 0.35 < math.log(2) < metrics[0]["loss"] + 0.5
    assert metrics[-1]["accuracy"] == 1.0
    assert trained_key(tmp_path / "reward") == "k1"
    assert not (tmp_path / "state").exists()
    model = load_reward_model(RewardModelConfig(model=str(tmp_path / "reward")))
    assert (model.encoder.window, model.encoder.part) == (48, "extracts")
    ranked = model.rank([(prompt.example, prompt.responses) for prompt in PROMPTS])
    for prompt, rewards in zip(PROMPTS, ranked, strict=True):
        by_score = {low: reward.reward for (low, _), reward in zip(prompt.bounds, rewards.rewards, strict=True)}
        assert (by_score[9.0] or 0) > (by_score[2.0] or 0)


def test_lora_is_merged_and_kept_beside(tiny_policy: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    train(tmp_path, tiny_policy, lora=LoraSettings(r=4))
    assert not [name for name in weights(tmp_path) if "lora" in name]
    merged = load_reward_model(RewardModelConfig(model=str(tmp_path / "reward")))
    base = load_base(tiny_policy, training=False)
    adapted = PeftModel.from_pretrained(base.model, tmp_path / "reward" / "adapter").eval()
    ids, _ = merged.encoder.encode(context="the town", query="who ?", response="anna built it")
    [[reward]] = merged.backend.rewards([[ids or []]])
    with torch.no_grad():
        expected = float(adapted(input_ids=torch.tensor([ids])).logits[0, 0])
    assert reward == pytest.approx(expected, abs=1e-4)
    name = "model.layers.0.self_attn.q_proj.weight"
    unchanged = load_base(tiny_policy, training=False).model.state_dict()
    assert not torch.equal(unchanged[name], weights(tmp_path)[name])


def test_killed_training_continues_with_same_result(tiny_policy: Path, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def kill_at_step_8(step: int, values: dict[str, float]) -> None:
        if step == 8:
            raise Killed

    train(tmp_path / "whole", tiny_policy)
    with pytest.raises(Killed):
        train(tmp_path / "killed", tiny_policy, kill_at_step_8)
    assert not (tmp_path / "killed" / "reward").exists()
    report = train(tmp_path / "killed", tiny_policy)
    assert report.resumed_from == 5
    expected = weights(tmp_path / "whole")
    assert all(torch.equal(weight, expected[name]) for name, weight in weights(tmp_path / "killed").items())


def test_seed_decides_head(tiny_policy: Path, tmp_path: Path) -> None:
    train(tmp_path / "first", tiny_policy, max_steps=1)
    train(tmp_path / "second", tiny_policy, max_steps=1)
    train(tmp_path / "third", tiny_policy, max_steps=1, seed=1)
    first, second, third = (weights(tmp_path / name)["score.weight"] for name in ("first", "second", "third"))
    assert torch.equal(first, second)
    assert not torch.allclose(first, third)


def test_margin_is_scaled_difference_in_loss(tiny_policy: Path, tmp_path: Path) -> None:
    policy = load_base(tiny_policy, training=True)
    config = CONFIG.model_copy(update={"margin_scale": 0.5})
    encoder = InputEncoder(policy.encoder.chat, 48)
    data = tokenize_score_pairs(encoder, PROMPTS[:1], config, rows_dir=tmp_path / "rows")
    assert data.rows["margin"] == [3.5, 3.5]  # 0.5 * (9 - 2)
    arguments = run.trainer_arguments(config, policy, state=tmp_path, max_length=None, bf16=False)
    trainer = trainers.reward_trainer(policy, data.rows, None, arguments)
    batch = trainer._prepare_inputs(trainer.data_collator([trainer.train_dataset[0]]))
    loss = trainer.compute_loss(trainer.model, dict(batch)).item()
    with torch.no_grad():
        chosen, rejected = (
            float(trainer.model(input_ids=torch.tensor([data.rows[0][name]])).logits[0, 0])
            for name in ("chosen_ids", "rejected_ids")
        )
    assert loss == pytest.approx(math.log1p(math.exp(-(chosen - rejected - 3.5))), rel=1e-4)


def test_nothing_to_train_on(tiny_policy: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"differ by less than distill\.min_margin"):
        train(tmp_path, tiny_policy, min_margin=8.0)
    with pytest.raises(DataError, match=r"exceed distill\.max_length, 16 tokens \(18 pairs\)"):
        train(tmp_path, tiny_policy, max_length=16, query="who " * 20)
    with pytest.raises(PolicyError, match=r"distill\.max_length is 300, and .* reads 256 tokens"):
        train(tmp_path, tiny_policy, max_length=300)


def test_key_of_other_folders(tiny_policy: Path, tmp_path: Path) -> None:
    assert trained_key(tiny_policy) is None
    assert trained_key(tmp_path) is None
    assert json.loads((tiny_policy / "config.json").read_text())["model_type"] == "llama"
