"""A training that was killed or stopped by SIGTERM resumes exactly."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from small_training import Training, TrainingStopped, train_until_second_checkpoint
from transformers import AutoTokenizer, LlamaForCausalLM

from longreward.errors import StateError
from longreward.training.checkpoints import mark_complete

# One process imports torch and TRL once, and a signal ends each of its children while it logs the 6th update.
ENDED = """
import os, signal, sys
from pathlib import Path
import longreward.training.trainers
from small_training import Training

for case in sys.argv[3:]:
    kind, name = case.split(":")
    child = os.fork()
    if child == 0:
        number = getattr(signal, name)
        Training(kind, Path(sys.argv[1]) / case, Path(sys.argv[2])).run(
            log=lambda step, metrics: os.kill(os.getpid(), number) if step == 6 else None
        )
        os._exit(0)
    print(case, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
CASES = {"dpo:SIGKILL": 4, "sft-lora:SIGTERM": 7}


@pytest.fixture(scope="module")
def ended(tmp_path_factory, tiny_policy):
    folder = tmp_path_factory.mktemp("ended")
    command = [sys.executable, "-c", ENDED, str(folder), str(tiny_policy), *CASES]
    result = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, capture_output=True, text=True, check=True
    )
    codes = dict(line.split() for line in result.stdout.splitlines() if line.split()[0] in CASES)
    assert codes == {case: str(-getattr(signal, case.split(":")[1])) for case in CASES}, result.stderr
    return folder


@pytest.mark.parametrize(("case", "resumed_from"), CASES.items())
def test_resumed_training_equals_uninterrupted_training(ended, tiny_policy, tmp_path, case, resumed_from):
    kind = case.split(":")[0]
    training = Training(kind, ended / case, tiny_policy)
    assert not training.out.exists()
    report = training.run()
    assert (report.resumed_from, report.steps) == (resumed_from, 9)
    assert not [*training.state.glob("*")]

    uninterrupted = Training(kind, tmp_path, tiny_policy)
    uninterrupted.run()
    assert [step for step, _ in training.metrics] == [3, 6, 9]
    assert training.metrics == uninterrupted.metrics
    result, expected = training.weights(), uninterrupted.weights()
    assert all(torch.equal(result[name], expected[name]) for name in expected)


@pytest.mark.parametrize(("signals", "checkpoint"), [(1, 7), (2, 4)])
def test_sigterm_reaches_previous_handler_after_checkpoint(tiny_policy, tmp_path, signals, checkpoint):
    training = Training("sft", tmp_path, tiny_policy)

    def handle(number, frame):
        raise TrainingStopped

    def send(step, metrics):
        for _ in range(signals if step == 6 else 0):
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, handle)
    try:
        with pytest.raises(TrainingStopped):
            training.run(log=send)
        assert signal.getsignal(signal.SIGTERM) is handle
    finally:
        signal.signal(signal.SIGTERM, before)
    assert training.run().resumed_from == checkpoint


def test_another_order_of_data_changes_losses(tiny_policy, tmp_path):
    one, other = Training("sft", tmp_path / "1", tiny_policy), Training("sft", tmp_path / "2", tiny_policy)
    one.run()
    other.run(seed=1)
    assert [metrics["loss"] for _, metrics in one.metrics] != [metrics["loss"] for _, metrics in other.metrics]


def test_training_interrupted_while_saving_takes_no_further_update(tiny_policy, tmp_path, monkeypatch):
    from longreward.training import run

    training = Training("sft", tmp_path / "ended", tiny_policy)

    def refuse(*args):
        raise StateError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(run, "save_model", refuse)
        with pytest.raises(StateError, match="disk is full"):
            training.run(max_steps=5)  # in the midst of the second epoch
    report = training.run(max_steps=5)
    assert (report.resumed_from, report.steps) == (5, 5)
    uninterrupted = Training("sft", tmp_path / "whole", tiny_policy)
    uninterrupted.run(max_steps=5)
    result, expected = training.weights(), uninterrupted.weights()
    assert all(torch.equal(result[name], expected[name]) for name in expected)


def test_resumed_training_does_not_tokenize_again(tiny_policy, tmp_path, monkeypatch):
    from longreward.training import training_data

    training, _ = train_until_second_checkpoint("dpo", tmp_path, tiny_policy)
    monkeypatch.setattr(training_data, "write_rows", lambda *args: pytest.fail("tokenized again"))
    assert training.run().resumed_from == 8


def tied_copy(policy: Path, folder: Path) -> Path:
    model = LlamaForCausalLM.from_pretrained(policy)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(policy).save_pretrained(folder)
    return folder


def test_missing_weights_give_warning_but_tied_ones_do_not(tiny_policy, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(transformers.trainer.logger, "warning", lambda text, *more: warnings.append(text))
    base = tied_copy(tiny_policy, tmp_path / "tied")
    training, checkpoint = train_until_second_checkpoint("sft", tmp_path / "sft", base)
    assert "lm_head.weight" not in load_file(checkpoint / "model.safetensors")
    assert training.run().resumed_from == 8
    assert [text for text in warnings if "missing keys" in text] == []

    training, checkpoint = train_until_second_checkpoint("sft", tmp_path / "again", base)
    weights = load_file(checkpoint / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    mark_complete(checkpoint)
    training.run()
    assert [text for text in warnings if "missing keys" in text] == [
        "There were missing keys in the checkpoint model loaded: ['model.norm.weight']."
    ]
