"""The prediction against trainings of a tiny Llama, in processes of their own; its terms against sums by hand."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import LlamaConfig

from longreward.errors import PolicyError
from longreward.training.config import LoraSettings
from longreward.training.dpo import TrainConfig
from longreward.training.estimate.forecast import TrainingShape, check_fits, forecast, lines
from longreward.training.estimate.memory import parse_device, step_memory
from longreward.training.estimate.meta_step import Batch, MemoryTrace, ModelSpec, Parts, trace_meta_step

MEASURED = Path(__file__).with_name("measured_training.py")
TINY = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4, vocab_size=100)


def blueprint(**changes):
    settings = {"dtype": "float32", "bf16": False, "checkpointing": False, "lora": None}
    return ModelSpec(TINY, attention="sdpa", trust_remote_code=False, **{**settings, **changes})


PLAIN = {"gradient_checkpointing": False, "bf16": False}
WAYS = {"plain": PLAIN, "checkpointing": {**PLAIN, "gradient_checkpointing": True}, "lora": {**PLAIN, "lora": {"r": 8}}}
MORE_WAYS = {
    "bf16": {**PLAIN, "bf16": True},
    "two rows": {**PLAIN, "prefix_sharing": "off"},
    "all": {"gradient_checkpointing": True, "lora": {"r": 8}, "prefix_sharing": "off"},
}


@pytest.mark.parametrize("ways", [WAYS, pytest.param(MORE_WAYS, marks=pytest.mark.slow)], ids=["main", "more"])
def test_predicted_peaks_are_near_measured_ones(ways):
    running = [
        subprocess.Popen([sys.executable, MEASURED, json.dumps(way)], stdout=subprocess.PIPE) for way in ways.values()
    ]
    for name, process in zip(ways, running, strict=True):
        out, _ = process.communicate(timeout=240)
        assert process.returncode == 0, name
        found = json.loads(out.splitlines()[-1])
        assert 0.7 < found["predicted"] / found["measured"] < 1.4, (name, found)


def test_weights_gradients_and_moments_are_counted_in_their_own_types():
    whole = trace_meta_step(blueprint(), Batch(2, 64)).parts
    # 2 x 100 x 64 of embeddings; a layer: 4 x 64 x 64, 3 x 64 x 128 and two norms of 64; a last norm
    assert whole.parameters == whole.trainable == 12_800 + 3 * (16_384 + 24_576 + 128) + 64
    assert whole.weight_bytes == 4 * whole.parameters
    assert whole.head == 6_400
    lora = trace_meta_step(blueprint(dtype="bfloat16", bf16=True, lora=LoraSettings(r=2)), Batch(2, 64)).parts
    adapters = 3 * 2 * (4 * (64 + 64) + 3 * (64 + 128))
    assert (lora.trainable, lora.trainable_bytes) == (adapters, 4 * adapters)
    assert lora.weight_bytes == 2 * whole.parameters + 4 * adapters


def test_checkpointing_keeps_the_layers_inputs_alone():
    plain, checkpointed = (trace_meta_step(blueprint(checkpointing=way), Batch(1, 1000)) for way in (False, True))
    # inputs of three layers and of the last norm, its result and its product: 64 float32 values a token each
    assert checkpointed.kept == pytest.approx(6 * 1000 * 64 * 4, rel=0.2)
    assert plain.kept > 10 * 1000 * 64 * 4 * 3
    assert checkpointed.peak < plain.peak / 2


def test_what_is_kept_grows_with_the_tokens_and_sharing_halves_it():
    one, two = (trace_meta_step(blueprint(), Batch(2, tokens)).kept for tokens in (2000, 4000))
    assert two == pytest.approx(2 * one, rel=0.01)
    shared = trace_meta_step(blueprint(), Batch(1, 4100, ((3900, 100, 100),)))
    assert shared.why == ""
    assert shared.kept < 0.7 * two


def test_eager_attention_keeps_its_square():
    small, large = (trace_meta_step(ModelSpec(TINY, "float32", "eager", False, False, False, None), Batch(1, t)).kept
                    for t in (1000, 2000))  # fmt: skip
    assert large > 3.5 * small


def test_a_model_that_cannot_be_rehearsed_says_so_and_still_has_its_certain_terms():
    parts = trace_meta_step(blueprint(), Batch(1, 8)).parts
    memory = step_memory(MemoryTrace(parts, None, None, "no rule"), scored=8, bf16=False, cuda=True)
    assert memory.certain == 16 * parts.parameters
    assert any("not counted for this model (no rule)" in term.formula for term in memory.terms)


def test_processes_share_weights_gradients_and_moments_but_not_activations():
    parts = Parts(1000, 200, 1000, 4000, 4000, layers=4, hidden=8, vocabulary=25)
    step = MemoryTrace(parts, kept=800, peak=100_000)
    one, four = (step_memory(step, scored=1, bf16=False, cuda=False, processes=count) for count in (1, 4))
    assert one.certain == 16_000 + 800 / 4
    assert four.certain == 4_000 + 800 / 4
    assert one.total - four.total == 12_000 - 2 * 4000 / 4  # two layers are gathered


def test_what_cannot_fit_is_refused_with_what_would():
    config = TrainConfig(bf16=False, gradient_checkpointing=False, micro_batch=2)
    device = replace(parse_device("cuda:1GB"), total=1e6)
    found = forecast(blueprint(), ((3000, 50, 50), (500, 5, 5)), TrainingShape(config, reference_batch=1), device)
    with pytest.raises(PolicyError) as refused:
        check_fits(blueprint(), found)
    said = str(refused.value)
    for advice in ("lora", "gradient_checkpointing: true", "micro_batch: 1", "offloaded", "launcher: accelerate, 8"):
        assert advice in said
    check_fits(blueprint(), forecast(blueprint(), ((30, 5, 5),), TrainingShape(config), parse_device("cuda:64GB")))


def test_the_forecast_shows_lengths_terms_and_steps_and_no_time():
    config = TrainConfig(batch_size=4, epochs=2, bf16=True)
    pairs = tuple((prompt, 5, 3) for prompt in range(1, 101))
    found = forecast(blueprint(), pairs, TrainingShape(config, share=True, reference_batch=8), parse_device("H100"))
    shown = "\n".join(lines(found))
    assert "prompt    median 50, p95 95, longest 100" in shown
    assert "prefix sharing is on: 58 tokens a pair with it, 111 without" in shown  # 50.5 + 8, 2 x (50.5 + 5)
    assert "50 steps; their time is measured when the training starts" in shown
    for term in ("weights", "gradients", "AdamW", "kept activations", "libraries"):
        assert f"  {term}:" in shown
