"""The train stage on a GPU: resume after a kill, `bf16: auto`, and the memory that a step takes."""

import gc
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from longreward.data.formats import write_pairs
from longreward.models.config import PolicyConfig
from longreward.models.policy import Policy, PolicyTokenizer
from longreward.records import PreferencePair, Response
from longreward.training import run, trainers
from longreward.training.config import LoraSettings
from longreward.training.dpo import TrainConfig, loss_arguments, train_dpo
from longreward.training.estimate.memory import estimate_memory, measure_shape
from longreward.training.lora import build_lora_config

WORDS = "the town is in north of river and anna was mayor when ben built bridge".split()  # noqa: SIM905
SETTINGS = {
    "learning_rate": 2e-3,
    "epochs": 3,
    "batch_size": 4,
    "micro_batch": 2,
    "warmup": 0,
    "log_steps": 3,
    "save_steps": 4,
}
STEPS = 9


def make_pair(number: int) -> PreferencePair:
    def response(index: int, text: str) -> Response:
        return Response(id=f"{number}-{index}", example_id=str(number), query="who ?", text=text)

    return PreferencePair(
        id=str(number),
        context=" ".join(WORDS[: 2 + number]) + " .",
        query="who ?",
        chosen=response(0, f"it is {WORDS[number]} ."),
        rejected=response(1, " ".join(WORDS[: 1 + number % 3])),
        chosen_reward=9.0,
        rejected_reward=3.0,
    )


def train(folder: Path, base: Path, device: str, kill_at: int | None = None) -> Any:
    """Train on ten pairs; kill this process while it logs the metrics of update `kill_at`."""

    def log(step: int, metrics: dict[str, float]) -> None:
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    pairs = folder / "pairs.jsonl"
    write_pairs(pairs, map(make_pair, range(10)))
    policy = PolicyConfig(base_model="unused", device="auto" if device == "cuda" else "cpu")
    state = folder / "state"
    return train_dpo(
        TrainConfig.model_validate(SETTINGS),
        policy,
        sft_model=str(base),
        pairs=pairs,
        out=folder / "model",
        state=state,
        log=log,
    )


@pytest.fixture
def killed(tmp_path, tiny_policy, device):
    """A folder with the state of a training that was killed after its first checkpoint."""
    command = [sys.executable, __file__, str(tmp_path), str(tiny_policy), device.type]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == -signal.SIGKILL, result.stderr
    return tmp_path


def test_killed_training_resumes_on_gpu(killed, tiny_policy, device, tmp_path_factory):
    [precision] = killed.glob("state/**/precision.json")
    assert json.loads(precision.read_text()) == {"bf16": device.type == "cuda"}
    report = train(killed, tiny_policy, device.type)
    assert (report.resumed_from, report.steps) == (4, STEPS)

    uninterrupted = tmp_path_factory.mktemp("uninterrupted")
    train(uninterrupted, tiny_policy, device.type)
    weights = [load_file(folder / "model" / "model.safetensors") for folder in (killed, uninterrupted)]
    base = load_file(tiny_policy / "model.safetensors")
    for name, expected in weights[1].items():
        change = (expected - base[name]).norm()
        # Not bit for bit: the backward pass of attention on a GPU adds in no fixed order.
        assert (weights[0][name] - expected).norm() <= 0.02 * change + 1e-6, name
        assert change > 0


PROMPT, CHOSEN, REJECTED = 12_000, 400, 300


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("lora", [None, LoraSettings(r=16)], ids=["full", "lora"])
@pytest.mark.parametrize("shared", [False, True], ids=["trl", "shared"])
def test_memory_estimate_is_within_10_percent(shared, lora, checkpointing, device, tmp_path):
    """Two updates of a Llama of 0.5B weights: float32 weights and autocast, or an adapter on bfloat16 weights.

    An update has two micro batches: in the second one the gradients of the first take their memory.
    """
    if device.type == "cpu":
        pytest.skip("counts the memory of torch's GPU allocator")
    config = LlamaConfig(
        hidden_size=1536,
        intermediate_size=5376,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=4,
        vocab_size=64_000,
        max_position_embeddings=2**17,
    )
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    with device:
        model: Any = LlamaForCausalLM._from_config(
            config, dtype=torch.bfloat16 if lora else torch.float32, attn_implementation="sdpa"
        )
    with torch.device("meta"):
        shape = measure_shape(LlamaForCausalLM._from_config(config, dtype=model.dtype), lora)
    words = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1}, unk_token="<s>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", pad_token="<s>")
    policy = Policy(
        PolicyConfig(base_model=""), "", model, PolicyTokenizer(tokenizer, "{context}{query}", (1,)), 2**17, device
    )
    settings = TrainConfig(
        batch_size=2, max_steps=2, warmup=0, lora=lora, gradient_checkpointing=checkpointing, learning_rate=1e-6
    )
    reference = tmp_path / "reference.json"
    reference.write_text(json.dumps({"ref_chosen_logps": [-9.0] * 4, "ref_rejected_logps": [-9.0] * 4}))
    row = {"id": "1", "prompt_ids": [5] * PROMPT, "chosen_ids": [6] * CHOSEN, "rejected_ids": [7] * REJECTED}
    trainer = trainers.dpo_trainer(
        policy,
        Dataset.from_list([{**row, "length": PROMPT + CHOSEN}] * 4),
        build_lora_config(lora, model),
        run.trainer_arguments(settings, policy, state=tmp_path, max_length=2**17, bf16=True) | loss_arguments(settings),
        ce_weight=settings.ce_weight,
        reference_file=reference,
        share=shared,
    )
    torch.cuda.reset_peak_memory_stats()
    trainer.train()
    measured = torch.cuda.max_memory_allocated() - before
    estimate = estimate_memory(
        shape,
        tokens=PROMPT + CHOSEN + REJECTED if shared else 2 * (PROMPT + CHOSEN),
        scored=CHOSEN + REJECTED if shared else 2 * CHOSEN,
        bf16=True,
        cuda=True,
        checkpointing=checkpointing,
    )
    expected = estimate.total - estimate.libraries  # torch does not count the libraries
    print(f"measured {measured / 1e9:.2f} GB, estimated {expected / 1e9:.2f} GB: {estimate}")
    assert expected == pytest.approx(measured, rel=0.1)


if __name__ == "__main__":
    train(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], kill_at=6)
