import json
import logging
from types import SimpleNamespace

import pytest
import torch
from small_training import TRAININGS, Training, train_until_second_checkpoint
from transformers import LlamaConfig, LlamaForCausalLM

from longreward.errors import StateError
from longreward.models.config import PolicyConfig
from longreward.training import precision
from longreward.training.precision import bfloat16_speedup, resolve_bf16, resolve_without_model

CPU = SimpleNamespace(device=torch.device("cpu"), config=PolicyConfig(base_model=""), model=None)
CUDA = SimpleNamespace(device=torch.device("cuda"), config=PolicyConfig(base_model=""), model=None)


def set_speedup(monkeypatch, speedup):
    """Replace the measurement of the speedup; return the list of its arguments."""
    measurements = []

    def measure(model, **shape):
        measurements.append(shape)
        return speedup

    monkeypatch.setattr(precision, "bfloat16_speedup", measure)
    return measurements


def tiny_llama():
    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2))


def resolve(setting, policy, state):
    return resolve_bf16(setting, policy, state=state, rows=4, tokens=300)


@pytest.mark.parametrize(("speedup", "choice"), [(0.2, False), (1.49, False), (1.51, True), (2.0, True)])
def test_cpu_uses_bfloat16_if_clearly_faster(speedup, choice, tmp_path, monkeypatch, caplog):
    measurements = set_speedup(monkeypatch, speedup)
    with caplog.at_level(logging.INFO):
        assert resolve("auto", CPU, tmp_path / "state") is choice
    assert measurements == [{"rows": 4, "tokens": 300, "full": True}]
    assert f"bf16: auto is {str(choice).lower()}: on this CPU the model is" in caplog.text
    assert json.loads((tmp_path / "state/precision.json").read_text()) == {"bf16": choice}


@pytest.mark.parametrize(("first", "second"), [(3.0, 0.1), (0.1, 3.0)])
def test_saved_choice_kept(first, second, tmp_path, monkeypatch):
    set_speedup(monkeypatch, first)
    first_choice = resolve("auto", CPU, tmp_path)
    measurements = set_speedup(monkeypatch, second)
    assert resolve("auto", CPU, tmp_path) is first_choice
    assert measurements == []
    assert resolve("auto", CPU, tmp_path / "another") is not first_choice


@pytest.mark.parametrize("setting", [True, False])
def test_explicit_setting_not_measured(setting, tmp_path, monkeypatch):
    measurements = set_speedup(monkeypatch, 1.0)
    assert resolve(setting, CPU, tmp_path) is resolve_without_model(setting, CPU.config) is setting
    assert (measurements, [*tmp_path.iterdir()]) == ([], [])


@pytest.mark.parametrize("supported", [True, False])
def test_gpu_uses_bfloat16_if_supported(supported, tmp_path, monkeypatch):
    measurements = set_speedup(monkeypatch, 1.0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert resolve("auto", CUDA, tmp_path) is resolve_without_model("auto", CUDA.config) is supported
    assert resolve_without_model("auto", PolicyConfig(base_model="", device="cpu")) is False
    assert measurements == []


def test_bfloat16_training_does_not_resume_on_gpu_without_support(tmp_path, monkeypatch):
    set_speedup(monkeypatch, 2.0)
    assert resolve("auto", CPU, tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    with pytest.raises(StateError, match="started in bfloat16, which this GPU does not have"):
        resolve("auto", CUDA, tmp_path)


def test_several_processes_on_cpus_use_float32(tmp_path, monkeypatch):
    measurements = set_speedup(monkeypatch, 2.0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert resolve("auto", CPU, tmp_path) is False
    assert measurements == []


@pytest.mark.parametrize(
    ("full", "seconds", "speedup"), [(True, {False: 6.0, True: 2.0}, 3.0), (False, {False: 1.0, True: 4.0}, 0.25)]
)
def test_speedup_is_ratio_of_step_times(full, seconds, speedup, monkeypatch):
    model = tiny_llama()
    batches, calls = set(), []

    def step(model, ids, trained, *, bf16):
        batches.add((tuple(ids.shape), len(trained)))
        calls.append(bf16)
        return seconds[bf16] * (0.1 if calls.count(bf16) == 1 else 1)  # the first step is a warm-up

    monkeypatch.setattr(precision, "_step_seconds", step)
    monkeypatch.setattr(precision, "_forward_seconds", lambda model, ids, bf16: 1e-3)
    assert bfloat16_speedup(model, rows=3, tokens=40, full=full) == speedup
    assert batches == {((3, 40), sum(w.dim() == 1 or full for w in model.parameters()))}


def test_slow_model_measured_on_smaller_batch(monkeypatch):
    model = tiny_llama()
    shapes = []

    def forward(model, ids, *, bf16):
        shapes.append(tuple(ids.shape))
        return ids.numel() * (0.008 if bf16 else 0.001)

    monkeypatch.setattr(precision, "_forward_seconds", forward)
    assert bfloat16_speedup(model, rows=8, tokens=30) == pytest.approx(0.125)  # 0.03 s a row, of 0.1 s
    assert shapes[2:] == [(3, 30)] * 3


def test_measuring_leaves_no_gradient_and_no_random_state():
    model = tiny_llama()
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    assert bfloat16_speedup(model, rows=2, tokens=16) > 0
    assert all(weight.grad is None for weight in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_resumed_training_keeps_bfloat16(tiny_policy, tmp_path, monkeypatch):
    kind = "sft"
    monkeypatch.setitem(TRAININGS, kind, TRAININGS[kind].model_copy(update={"bf16": "auto"}))
    set_speedup(monkeypatch, 2.0)
    training, _ = train_until_second_checkpoint(kind, tmp_path / "stopped", tiny_policy)
    uninterrupted = Training(kind, tmp_path / "whole", tiny_policy)
    uninterrupted.run()
    set_speedup(monkeypatch, 0.1)
    report = training.run()
    assert (report.resumed_from, report.bf16, report.metrics()["bf16"]) == (8, True, True)
    result, expected = training.weights(), uninterrupted.weights()
    assert all(torch.equal(result[name], expected[name]) for name in expected)
    other = Training(kind, tmp_path / "float32", tiny_policy)
    assert other.run().bf16 is False
    assert any(not torch.equal(other.weights()[name], expected[name]) for name in expected)
