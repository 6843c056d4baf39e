"""Checkpoints that are of another training, or cannot be read: passed over with a word, never silently."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_training import Stopped, Training, example, stop_at, stopped_after_two_checkpoints

from longreward.data.formats import write_examples
from longreward.errors import StateError
from longreward.training.checkpoints import mark_complete
from longreward.training.config import LoraSettings


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


@pytest.mark.parametrize("kind", ["dpo", "sft", "dpo-lora"])
def test_any_other_setting_of_the_training_or_the_policy_has_checkpoints_of_its_own(
    tiny_policy, tmp_path, monkeypatch, kind
):
    folders = []

    def stop(*_, keep, **__):
        folders.append(keep.parent)
        raise Stopped

    monkeypatch.setattr("longreward.training.estimate.training_estimate.estimate_training", stop)
    training = Training(kind, tmp_path, tiny_policy)

    def folder(**changes):
        with pytest.raises(Stopped):
            training.run(**changes)
        return folders[-1]

    first = folder()
    assert folder() == first
    changes = [{"seed": 1}, {"learning_rate": 1e-3}, {"batch_size": 8}, {"max_steps": 5}, {"lora": LoraSettings(r=2)}]
    if kind != "sft":
        changes += [{"beta": 0.3}, {"ce_weight": 0.2}, {"token_mismatch": "render"}]
    others = {folder(**change) for change in changes}
    training.policy = training.policy.model_copy(update={"prompt_template": "{query} {context}"})
    others.add(folder())
    assert len(others - {first}) == len(changes) + 1


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


def test_figures_of_an_older_checkpoint_without_them_are_no_reason_to_stop(tiny_policy, tmp_path):
    training, newest = stopped_after_two_checkpoints("sft", tmp_path, tiny_policy)
    (newest / "figures-0.json").unlink()
    mark_complete(newest)
    state = json.loads((newest / "trainer_state.json").read_text())
    assert [point["step"] for point in state["log_history"]] == [3, 6]
    assert training.run().resumed_from == 8
    assert [step for step, _ in training.points] == [3, 6, 9]
