"""NaN and too little memory: the advice in the error, and the files that remain."""

import pytest
import torch
from small_training import Training
from trl import DPOTrainer, SFTTrainer

from longreward.errors import PolicyError
from longreward.training.error_advice import actionable_error
from longreward.training.length_grouping import LengthGroupedSampler


def break_at(call: int, monkeypatch, what: str):
    """The `call`-th micro batch's loss becomes NaN, or the gradients behind it infinite."""
    compute, calls = SFTTrainer.compute_loss, []

    def broken(self, *args, **named):
        loss = compute(self, *args, **named)
        calls.append(1)
        if len(calls) != call:
            return loss
        if what == "loss":
            return loss * float("nan")
        loss.register_hook(lambda gradient: gradient * float("inf"))
        return loss

    monkeypatch.setattr(SFTTrainer, "compute_loss", broken)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_nan_stops_training_and_keeps_last_good_checkpoint(tiny_policy, tmp_path, monkeypatch, what):
    training = Training("sft", tmp_path, tiny_policy)
    with monkeypatch.context() as patch:
        break_at(9, patch, what)  # of five micro batches an epoch: the second epoch's fourth, in the fifth update
        with pytest.raises(PolicyError) as caught:
            training.run(save_steps=1, prefix_sharing="off")
    message = str(caught.value)
    order = LengthGroupedSampler(range(13, 23), group=2, seed=0).epoch_order(1)  # the n-th text has 13 + n tokens
    rows = order[6:8] if what == "loss" else order[4:8]
    assert f"the {what} of update 5 is not a finite number, with {', '.join(map(str, rows))} (learning rate" in message
    for words in ("weights float32, bf16: false", "Lower learning_rate", "starts from the beginning"):
        assert words in message
    assert not training.out.exists()
    assert sorted(path.name for path in training.state.glob("*/checkpoint-*")) == ["checkpoint-3", "checkpoint-4"]
    if what == "gradient":  # both leave the same checkpoint
        return
    training.metrics.clear()
    assert training.run(save_steps=1, prefix_sharing="off").resumed_from == 4
    uninterrupted = Training("sft", tmp_path / "whole", tiny_policy)
    uninterrupted.run(save_steps=1, prefix_sharing="off")
    assert training.metrics == uninterrupted.metrics


def test_infinite_weights_not_saved(tiny_policy, tmp_path, monkeypatch):
    training = Training("sft", tmp_path, tiny_policy)
    step = torch.optim.AdamW.step

    def overflow(self, *args, **named):
        message = step(self, *args, **named)
        with torch.no_grad():
            self.param_groups[0]["params"][0].fill_(float("inf"))
        return message

    monkeypatch.setattr(torch.optim.AdamW, "step", overflow)
    with pytest.raises(PolicyError, match=r"the weight .* after update 1 is not a finite number"):
        training.run(save_steps=1, prefix_sharing="off")
    assert not [*training.state.glob("*/checkpoint-*")]
    assert not training.out.exists()


NO_ROOM = "DefaultCPUAllocator: not enough memory: you tried to allocate 4398046511104 bytes."


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "this machine's memory is full"),
        (RuntimeError(NO_ROOM), "this machine's memory is full .*4398046511104 bytes"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), "the GPU's memory is full .*2 GiB"),
    ],
)
def test_out_of_memory_errors_carry_advice(tmp_path, error, words):
    with pytest.raises(PolicyError, match=words) as caught, actionable_error(tmp_path):
        raise error
    for setting in ("micro_batch", "gradient_checkpointing", "prefix_sharing", "lora", "launcher"):
        assert setting in str(caught.value)


def test_out_of_memory_of_reference_carries_advice(tiny_policy, tmp_path, monkeypatch):
    def allocate(*args):
        torch.empty(1 << 50, dtype=torch.uint8)

    monkeypatch.setattr(DPOTrainer, "compute_ref_log_probs", allocate)
    with pytest.raises(PolicyError, match=r"this machine's memory is full .*reference_batch"):
        Training("dpo", tmp_path, tiny_policy).run()


def test_torch_cpu_allocator_error_recognized(tmp_path):
    with pytest.raises(PolicyError, match="this machine's memory is full"), actionable_error(tmp_path):
        torch.empty(1 << 50, dtype=torch.uint8)
