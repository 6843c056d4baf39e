"""The memory formula against sums by hand, and (slow) against measured trainings of a small Llama."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from longreward.errors import ConfigError, PolicyError
from longreward.models.config import PolicyConfig
from longreward.training.config import LoraSettings
from longreward.training.estimate.memory import (
    Device,
    ModelShape,
    build_meta_model,
    check_fits,
    estimate_memory,
    measure_shape,
    parse_device,
)

LLAMA = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4, vocab_size=100)
PARAMETERS = 12_800 + 3 * (16_384 + 24_576 + 128) + 64  # two embeddings; attention, MLP and norms of a layer; last norm
ADAPTERS = 3 * 2 * (4 * (64 + 64) + 3 * (64 + 128))  # rank 2 on seven linear layers
SHAPE = ModelShape(1000, 1000, 4000, 4000, layers=4, hidden=8, intermediate=16)


def shape(dtype: torch.dtype, lora: LoraSettings | None = None) -> ModelShape:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(LLAMA, dtype=dtype)
    return measure_shape(model, lora)


def step(shape: ModelShape = SHAPE, **changes):
    arguments = {"tokens": 100, "scored": 10, "bf16": False, "cuda": True, "checkpointing": False}
    return estimate_memory(shape, **{**arguments, **changes})


def test_weights_gradients_and_moments_counted_in_own_dtype():
    full = shape(torch.float32)
    assert full.parameters == full.trainable == PARAMETERS
    assert full.weight_bytes == full.trainable_bytes == 4 * PARAMETERS
    lora = shape(torch.bfloat16, LoraSettings(r=2))
    assert (lora.trainable, lora.trainable_bytes) == (ADAPTERS, 4 * ADAPTERS)
    assert lora.weight_bytes == 2 * PARAMETERS + 4 * ADAPTERS
    memory = step(full)
    assert (memory.weights, memory.gradients, memory.optimizer) == (4 * PARAMETERS, 4 * PARAMETERS, 8 * PARAMETERS)
    assert memory.fixed == 16 * PARAMETERS


def test_checkpointing_keeps_only_inputs_of_layers():
    layer = 4 * (9 * 8 + 4 * 16)  # float32
    assert step().activations == 100 * (4 * layer + 4 * 2 * 16)
    assert step(tokens=200).activations == 2 * step().activations
    assert step(checkpointing=True).activations == 100 * (4 * 4 * 8 + layer + 4 * 2 * 16)
    assert step(bf16=True).activations < step().activations


def test_lm_head_counts_tiles_if_larger_than_backward_pass():
    assert step(tokens=0).lm_head == 10 * 32_768 * 4
    assert step(tokens=0, scored=10_000).lm_head == 4096 * 32_768 * 4
    assert step(tokens=0, cuda=False).lm_head == 10 * 32_768 * 4 * 8
    assert step(tokens=1_000_000).lm_head == 0


def test_shards_divide_weights_gradients_and_moments_but_not_activations():
    one, four = step(), step(shards=4)
    assert (one.fixed, four.fixed) == (16_000, 4_000)
    assert one.activations == four.activations


def test_model_whose_optimizer_does_not_fit_refused_with_advice():
    with pytest.raises(PolicyError) as refused:
        check_fits(SHAPE, step(), Device("cuda", True, 6_000))
    assert "with at least 3 such devices" in str(refused.value)
    assert "lora: {r: 16} with policy.dtype: bfloat16" in str(refused.value)
    check_fits(SHAPE, step(), Device("cuda", True, 16_000))  # activations are not exact, so they are no reason


def test_device_has_kind_and_size():
    assert (parse_device("cuda:80GB").memory, parse_device("cpu:0.5GB").memory) == (80e9, 0.5e9)
    assert (parse_device("cuda:80GB").cuda, parse_device("cpu:16GB").cuda) == (True, False)
    for text in ("cuda", "H100", "abacus:3GB", "cuda:80", ""):
        with pytest.raises(ConfigError, match="--device"):
            parse_device(text)


FLOAT32 = {"gradient_checkpointing": False, "bf16": False}
SETTINGS = {
    "plain": FLOAT32,
    "checkpointing": {**FLOAT32, "gradient_checkpointing": True},
    "lora": {**FLOAT32, "lora": {"r": 8}},
    "bf16": {**FLOAT32, "bf16": True},
    "two rows": {**FLOAT32, "prefix_sharing": "off"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_estimates_are_near_measured_peaks(name):
    script = Path(__file__).with_name("measured_training.py")
    command = [sys.executable, str(script), json.dumps(SETTINGS[name])]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240).stdout
    result = json.loads(output.splitlines()[-1])
    assert 0.6 < result["estimated"] / result["measured"] < 1.6, result


def test_shape_with_adapter_gives_no_warning_of_libraries(tiny_policy: Path, recwarn: pytest.WarningsRecorder) -> None:
    policy, lora = PolicyConfig(base_model=str(tiny_policy)), LoraSettings(r=2)
    measure_shape(build_meta_model(policy, str(tiny_policy), lora=lora), lora)
    assert [str(warning.message) for warning in recwarn] == []
