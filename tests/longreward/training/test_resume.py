"""A training that was killed, or asked to end, goes on as if nothing had happened.

Ten texts in micro batches of two, two of them an update (the third of an epoch has one): three updates an epoch, nine
in all, with a checkpoint after the 4th and the 8th and figures after the 3rd, 6th and 9th.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from longreward.errors import PolicyError, StateError
from longreward.formats import write_examples, write_pairs
from longreward.policy import PolicyConfig
from longreward.records import Example, PreferencePair, Response
from longreward.training.dpo import TrainConfig, train_dpo
from longreward.training.order import Order
from longreward.training.settings import LoraSettings
from longreward.training.sft import SftConfig, train_sft

SETTINGS = {
    "learning_rate": 2e-3,
    "epochs": 3,
    "batch_size": 4,
    "micro_batch": 2,
    "bf16": False,
    "gradient_checkpointing": False,
    "warmup": 0,
    "log_steps": 3,
    "save_steps": 4,
}
LORA = LoraSettings(r=4, alpha=8, dropout=0.2)
TRAININGS = {
    "dpo": TrainConfig(**SETTINGS),
    "dpo-lora": TrainConfig(**SETTINGS, lora=LORA),
    "sft": SftConfig(**SETTINGS),
    "sft-lora": SftConfig(**SETTINGS, lora=LORA),
}
WORDS = "the town is in north of river and anna was mayor when ben built bridge".split()  # noqa: SIM905


def pair(number: int) -> PreferencePair:
    def response(n: int, text: str) -> Response:
        return Response(id=f"{number}-{n}", example_id=str(number), query="who ?", text=text)

    return PreferencePair(
        id=str(number),
        context=" ".join(WORDS[: 2 + number]) + " .",
        query="who ?",
        chosen=response(0, f"it is {WORDS[number]} ."),
        rejected=response(1, " ".join(WORDS[: 1 + number % 3])),
        chosen_reward=9.0,
        rejected_reward=3.0,
    )


def example(number: int) -> Example:
    context = " ".join(WORDS[: 2 + number]) + " ."
    return Example(id=str(number), document_id="1", context=context, query="who ?", answer=f"it is {WORDS[number]} .")


class Training:
    def __init__(self, kind: str, folder: Path, base: Path):
        self.kind, self.base, self.out, self.state = kind, base, folder / "model", folder / "state"
        self.data, self.points = folder / "data.jsonl", []
        folder.mkdir(parents=True, exist_ok=True)
        if kind.startswith("dpo"):
            write_pairs(self.data, map(pair, range(10)))
        else:
            write_examples(self.data, map(example, range(10)))

    def log(self, step, figures):
        self.points.append((step, figures))

    def run(self, log=None, **changes):
        config = TRAININGS[self.kind].model_copy(update=changes)
        more = {"out": self.out, "state": self.state, "log": log or self.log}
        policy = PolicyConfig(base_model="unused")
        if self.kind.startswith("dpo"):
            return train_dpo(config, policy, sft_model=str(self.base), pairs=self.data, **more)
        return train_sft(config, policy, base=str(self.base), data=self.data, **more)

    def weights(self):
        return load_file(self.out / "model.safetensors")

    def checkpoint(self, step: int) -> Path:
        [found] = self.state.glob(f"*/checkpoint-{step}")
        return found


class Stopped(Exception):
    pass


def stop_at(step: int):
    def log(now, figures):
        if now == step:
            raise Stopped

    return log


# One process reads torch and TRL once, and each of its children is ended by a signal while it logs the 6th update.
ENDED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import longreward.training.trainers
from test_resume import Training

for case in sys.argv[4:]:
    kind, name = case.split(":")
    child = os.fork()
    if child == 0:
        number = getattr(signal, name)
        Training(kind, Path(sys.argv[2]) / case, Path(sys.argv[3])).run(
            log=lambda step, figures: os.kill(os.getpid(), number) if step == 6 else None
        )
        os._exit(0)
    print(case, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
CASES = {"dpo:SIGKILL": 4, "dpo-lora:SIGTERM": 7, "sft:SIGTERM": 7, "sft-lora:SIGKILL": 4}


@pytest.fixture(scope="module")
def ended(tmp_path_factory, tiny_policy):
    folder = tmp_path_factory.mktemp("ended")
    command = [sys.executable, "-c", ENDED, str(Path(__file__).parent), str(folder), str(tiny_policy), *CASES]
    found = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=True)
    codes = dict(line.split() for line in found.stdout.splitlines() if line.split()[0] in CASES)
    assert codes == {case: str(-getattr(signal, case.split(":")[1])) for case in CASES}, found.stderr
    return folder


@pytest.mark.parametrize(("case", "resumed_from"), CASES.items())
def test_losses_and_weights_are_those_of_a_training_that_nobody_ended(ended, tiny_policy, tmp_path, case, resumed_from):
    kind = case.split(":")[0]
    training = Training(kind, ended / case, tiny_policy)
    assert not training.out.exists()
    report = training.run()
    assert (report.resumed_from, report.steps) == (resumed_from, 9)
    assert not [*training.state.glob("*")]

    undisturbed = Training(kind, tmp_path, tiny_policy)
    undisturbed.run()
    assert [step for step, _ in training.points] == [3, 6, 9]
    assert training.points == undisturbed.points
    found, expected = training.weights(), undisturbed.weights()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(("signals", "checkpoint"), [(1, 7), (2, 4)])
def test_whoever_handled_sigterm_before_hears_of_it_after_a_checkpoint_or_at_once_of_a_second_one(
    tiny_policy, tmp_path, signals, checkpoint
):
    training = Training("sft", tmp_path, tiny_policy)

    def handle(number, frame):
        raise Stopped

    def send(step, figures):
        for _ in range(signals if step == 6 else 0):
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, handle)
    try:
        with pytest.raises(Stopped):
            training.run(log=send)
        assert signal.getsignal(signal.SIGTERM) is handle
    finally:
        signal.signal(signal.SIGTERM, before)
    assert training.run().resumed_from == checkpoint


def test_another_order_of_the_data_would_be_seen(tiny_policy, tmp_path):
    one, other = Training("sft", tmp_path / "1", tiny_policy), Training("sft", tmp_path / "2", tiny_policy)
    one.run()
    other.run(seed=1)
    assert [figures["loss"] for _, figures in one.points] != [figures["loss"] for _, figures in other.points]


def test_a_training_that_was_ended_while_its_model_was_written_takes_no_further_update(
    tiny_policy, tmp_path, monkeypatch
):
    from longreward.training import running

    training = Training("sft", tmp_path / "ended", tiny_policy)

    def refuse(*args):
        raise StateError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(running, "save_whole", refuse)
        with pytest.raises(StateError, match="disk is full"):
            training.run(max_steps=5)  # in the midst of the second epoch
    report = training.run(max_steps=5)
    assert (report.resumed_from, report.steps) == (5, 5)
    undisturbed = Training("sft", tmp_path / "whole", tiny_policy)
    undisturbed.run(max_steps=5)
    found, expected = training.weights(), undisturbed.weights()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_other_settings_model_or_data_are_another_training_and_leave_its_checkpoints(
    tiny_policy, save_tiny_policy, tmp_path
):
    training = Training("sft", tmp_path, tiny_policy)
    with pytest.raises(Stopped):
        training.run(log=stop_at(6))
    kept = training.checkpoint(4)
    assert training.run(learning_rate=1e-3).resumed_from == 0
    training.base = save_tiny_policy(tmp_path / "other", seed=1)
    assert training.run().resumed_from == 0
    training.base = tiny_policy
    write_examples(training.data, map(example, range(9)))
    assert training.run().resumed_from == 0
    assert kept.is_dir()
    write_examples(training.data, map(example, range(10)))
    assert training.run().resumed_from == 4


def stopped_after_two_checkpoints(kind, folder, base):
    training = Training(kind, folder, base)
    with pytest.raises(Stopped):
        training.run(log=stop_at(9))
    return training, training.checkpoint(8)


def overwrite(file: Path, text: bytes = b"\0" * 64) -> None:
    """Damage that leaves the size as it was."""
    with file.open("r+b") as there:
        there.write(text)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "trainer_state.json"])
def test_a_checkpoint_that_cannot_be_read_is_named_in_the_log_and_the_one_before_is_taken(
    tiny_policy, tmp_path, caplog, name
):
    training, newest = stopped_after_two_checkpoints("sft", tmp_path, tiny_policy)
    overwrite(newest / name)
    assert training.run().resumed_from == 4
    assert f"{newest} cannot be read ({name}: " in caplog.text


def test_a_checkpoint_of_another_adapter_or_of_other_weights_is_passed_over(tiny_policy, tmp_path, caplog):
    from safetensors.torch import save_file

    from longreward.training.checkpoints import mark_complete

    training, newest = stopped_after_two_checkpoints("sft-lora", tmp_path, tiny_policy)
    adapter = newest / "adapter_model.safetensors"
    save_file({name: weight.repeat(2, 2) for name, weight in load_file(adapter).items()}, adapter)
    mark_complete(newest)
    optimizer = training.checkpoint(4) / "optimizer.pt"
    state = torch.load(optimizer, weights_only=True)
    state["param_groups"][0]["params"].pop()
    torch.save(state, optimizer)
    mark_complete(training.checkpoint(4))
    with pytest.raises(
        StateError, match=r"no checkpoint .*8: adapter_model.*the model's own.*4: optimizer.pt: it holds"
    ):
        training.run()
    assert not training.out.exists()


def test_where_no_checkpoint_is_whole_the_log_says_that_it_starts_anew(tiny_policy, tmp_path, caplog):
    training, newest = stopped_after_two_checkpoints("sft", tmp_path, tiny_policy)
    for checkpoint in newest.parent.glob("checkpoint-*"):
        (checkpoint / "complete.json").unlink()
    assert training.run().resumed_from == 0
    assert "no checkpoint was written to its end; the training starts anew" in caplog.text


def test_a_resumed_training_does_not_tokenise_again(tiny_policy, tmp_path, monkeypatch):
    from longreward.training import rows

    training, _ = stopped_after_two_checkpoints("dpo", tmp_path, tiny_policy)
    monkeypatch.setattr(rows, "write", lambda *args: pytest.fail("tokenised again"))
    assert training.run().resumed_from == 8


def test_padding_is_reported_with_grouping_and_without(tiny_policy, tmp_path):
    figures = Training("sft", tmp_path, tiny_policy).run(max_steps=1).figures()
    # Texts of 13 to 22 tokens: sorted, neighbours of a micro batch differ by one or two tokens.
    assert 0 < figures["padding"] < figures["padding_ungrouped"] < 0.3
    alone = Training("sft", tmp_path / "alone", tiny_policy).run(max_steps=1, micro_batch=1).figures()
    assert alone["padding"] == alone["padding_ungrouped"] == 0


@pytest.mark.parametrize(("kind", "sharing"), [("sft", None), ("dpo", "off"), ("dpo", "on")])
def test_the_padding_told_is_that_of_the_batches(tiny_policy, tmp_path, monkeypatch, kind, sharing):
    from longreward.training import running

    counted = []

    def count(trainer):
        for batch in trainer.get_train_dataloader():
            masked = batch.get("packed_pairs")
            if masked is None:
                counted.append((batch["input_ids"].numel(), int(batch["attention_mask"].sum())))
            else:
                counted.append((masked["input_ids"].numel(), sum(map(sum, masked["lengths"]))))
        return told(trainer)

    told = running.padding_of
    monkeypatch.setattr(running, "padding_of", count)
    changes = {} if sharing is None else {"prefix_sharing": sharing}
    report = Training(kind, tmp_path, tiny_policy).run(max_steps=1, **changes)
    passed, real = map(sum, zip(*counted, strict=True))
    assert report.padding == pytest.approx(1 - real / passed)
    assert report.padding > 0


def break_at(call: int, monkeypatch, what: str):
    """The `call`-th micro batch's loss becomes NaN, or the gradients behind it infinite."""
    from trl import SFTTrainer

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
def test_nan_stops_at_once_says_where_and_leaves_the_last_good_checkpoint(tiny_policy, tmp_path, monkeypatch, what):
    training = Training("sft", tmp_path, tiny_policy)
    with monkeypatch.context() as patch:
        break_at(9, patch, what)  # of five micro batches an epoch: the second epoch's fourth, in the fifth update
        with pytest.raises(PolicyError) as caught:
            training.run(save_steps=1)
    found = str(caught.value)
    order = Order(range(13, 23), group=2, seed=0).of(1)  # the n-th text has 13 + n tokens
    seen = order[6:8] if what == "loss" else order[4:8]
    assert f"the {what} of update 5 is not a finite number, with {', '.join(map(str, seen))} (learning rate" in found
    for words in ("weights float32, bf16: false", "Lower learning_rate", "starts anew"):
        assert words in found
    assert not training.out.exists()
    assert sorted(path.name for path in training.state.glob("*/checkpoint-*")) == ["checkpoint-3", "checkpoint-4"]
    training.points.clear()
    assert training.run(save_steps=1).resumed_from == 4
    undisturbed = Training("sft", tmp_path / "whole", tiny_policy)
    undisturbed.run(save_steps=1)
    assert training.points == undisturbed.points


def test_weights_that_are_no_numbers_are_never_saved(tiny_policy, tmp_path, monkeypatch):
    training = Training("sft", tmp_path, tiny_policy)
    step = torch.optim.AdamW.step

    def overflow(self, *args, **named):
        found = step(self, *args, **named)
        with torch.no_grad():
            self.param_groups[0]["params"][0].fill_(float("inf"))
        return found

    monkeypatch.setattr(torch.optim.AdamW, "step", overflow)
    with pytest.raises(PolicyError, match=r"the weight .* after update 1 is not a finite number"):
        training.run(save_steps=1)
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
def test_too_little_memory_says_what_needs_less(tmp_path, error, words):
    from longreward.training.failures import mendable

    with pytest.raises(PolicyError, match=words) as caught, mendable(tmp_path):
        raise error
    for setting in ("micro_batch", "gradient_checkpointing", "prefix_sharing", "lora", "launcher"):
        assert setting in str(caught.value)


def test_a_reference_that_does_not_fit_into_memory_is_named_too(tiny_policy, tmp_path, monkeypatch):
    from trl import DPOTrainer

    def allocate(*args):
        torch.empty(1 << 50, dtype=torch.uint8)

    monkeypatch.setattr(DPOTrainer, "compute_ref_log_probs", allocate)
    with pytest.raises(PolicyError, match=r"this machine's memory is full .*reference_batch"):
        Training("dpo", tmp_path, tiny_policy).run()


def test_torchs_own_words_for_too_little_memory_are_known(tmp_path):
    from longreward.training.failures import mendable

    with pytest.raises(PolicyError, match="this machine's memory is full"), mendable(tmp_path):
        torch.empty(1 << 50, dtype=torch.uint8)


def test_figures_of_an_older_checkpoint_without_them_are_no_reason_to_stop(tiny_policy, tmp_path):
    from longreward.training.checkpoints import mark_complete

    training, newest = stopped_after_two_checkpoints("sft", tmp_path, tiny_policy)
    (newest / "figures-0.json").unlink()
    mark_complete(newest)
    state = json.loads((newest / "trainer_state.json").read_text())
    assert [point["step"] for point in state["log_history"]] == [3, 6]
    assert training.run().resumed_from == 8
    assert [step for step, _ in training.points] == [3, 6, 9]
