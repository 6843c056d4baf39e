"""Which checkpoint a training resumes from, and how a model is published."""

import errno
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from small_training import Training, TrainingStopped, stop_at, train_until_second_checkpoint

from longreward.errors import StateError
from longreward.training import checkpoints
from longreward.training.checkpoints import (
    checkpoint_step,
    latest_checkpoint,
    mark_complete,
    publish_model,
    training_key,
)
from longreward.training.config import LoraSettings


@pytest.fixture
def fits(monkeypatch):
    """Let every checkpoint fit the model; the tests below with trainings check the contents."""
    monkeypatch.setattr(checkpoints, "find_problem", lambda checkpoint, model: None)


def write_checkpoint(folder, step, *, complete=True):
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    if complete:
        mark_complete(checkpoint)
    return checkpoint


def test_latest_checkpoint_has_highest_step(tmp_path, fits):
    for step in (100, 20, 9):
        write_checkpoint(tmp_path, step)
    assert checkpoint_step(latest_checkpoint(tmp_path, None)) == 100


def test_unmarked_checkpoint_skipped(tmp_path, fits):
    write_checkpoint(tmp_path, 20)
    write_checkpoint(tmp_path, 40, complete=False)
    assert checkpoint_step(latest_checkpoint(tmp_path, None)) == 20


def test_truncated_checkpoint_skipped(tmp_path, fits):
    write_checkpoint(tmp_path, 20)
    (write_checkpoint(tmp_path, 40) / "model.safetensors").write_bytes(b"weigh")
    assert checkpoint_step(latest_checkpoint(tmp_path, None)) == 20


def test_no_folder_has_no_checkpoint(tmp_path):
    assert latest_checkpoint(tmp_path / "absent", None) is None


def test_published_model_replaces_old_one(tmp_path):
    out = tmp_path / "models" / "sft"
    publish_model(out, lambda folder: (folder / "old").write_text("1") and None)
    publish_model(out, lambda folder: (folder / "new").write_text("2") and None)
    assert [path.name for path in out.iterdir()] == ["new"]
    assert [path.name for path in out.parent.iterdir()] == ["sft"]


def test_full_disk_keeps_old_model_and_no_partial_one(tmp_path):
    out = tmp_path / "sft"
    publish_model(out, lambda folder: (folder / "old").write_text("1") and None)

    def fill_the_disk(folder):
        (folder / "part").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StateError, match="No space left"):
        publish_model(out, fill_the_disk)
    assert [path.name for path in out.iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["sft"]


def test_training_key_depends_on_settings_model_and_data(tmp_path):
    data, model = tmp_path / "sft.jsonl", tmp_path / "base"
    data.write_text("a")
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"weights")

    def key(settings="{}"):
        return training_key(settings, model=str(model), data=data)

    first = key()
    assert key() == first
    assert key('{"seed": 1}') != first
    (model / "model.safetensors").write_bytes(b"WEIGHTS")
    second = key()
    assert second != first
    data.write_text("b")
    assert key() not in (first, second)


def test_safetensors_error_keeps_old_model(tmp_path):
    publish_model(tmp_path / "sft", lambda folder: (folder / "model.safetensors").write_bytes(b"old"))

    def write(folder):
        (folder / "model.safetensors").write_bytes(b"ne")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(StateError, match="No space left"):
        publish_model(tmp_path / "sft", write)
    assert [path.name for path in tmp_path.iterdir()] == ["sft"]
    assert (tmp_path / "sft/model.safetensors").read_bytes() == b"old"


def test_disk_error_of_torch_converted_but_not_others(tmp_path):
    from longreward.training.error_advice import actionable_error

    with pytest.raises(StateError, match="a checkpoint cannot be written"), actionable_error(tmp_path):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 2083776 vs 2083664")
    with pytest.raises(RuntimeError, match="shapes"), actionable_error(tmp_path):
        raise RuntimeError("shapes cannot be multiplied")


def test_another_training_leaves_checkpoints_alone(tiny_policy, tmp_path):
    training = Training("sft", tmp_path, tiny_policy)
    with pytest.raises(TrainingStopped):
        training.run(log=stop_at(6))
    checkpoint = training.checkpoint(4)
    assert training.run(learning_rate=1e-3, max_steps=1).resumed_from == 0
    assert checkpoint.is_dir()
    assert training.run(max_steps=None).resumed_from == 4


@pytest.mark.parametrize("kind", ["dpo", "sft-lora"])
def test_each_setting_has_own_state_folder(tiny_policy, tmp_path, monkeypatch, kind):
    folders = []

    def stop(*_, rows_dir, **__):
        folders.append(rows_dir.parent)
        raise TrainingStopped

    monkeypatch.setattr("longreward.training.run.estimate_training", stop)
    training = Training(kind, tmp_path, tiny_policy)

    def folder(**changes):
        with pytest.raises(TrainingStopped):
            training.run(**changes)
        return folders[-1]

    first = folder()
    assert folder() == first
    changes = [{"seed": 1}, {"learning_rate": 1e-3}, {"batch_size": 8}, {"max_steps": 5}, {"lora": LoraSettings(r=2)}]
    if kind == "dpo":
        changes += [{"beta": 0.3}, {"ce_weight": 0.2}, {"token_mismatch": "render"}]
    others = {folder(**change) for change in changes}
    training.policy = training.policy.model_copy(update={"prompt_template": "{query} {context}"})
    others.add(folder())
    assert len(others - {first}) == len(changes) + 1


def overwrite(file: Path, text: bytes = b"\0" * 64) -> None:
    """Damage a file without changing its size."""
    with file.open("r+b") as opened:
        opened.write(text)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "trainer_state.json"])
def test_unreadable_checkpoint_logged_and_previous_one_used(tiny_policy, tmp_path, caplog, name):
    training, newest = train_until_second_checkpoint("sft", tmp_path, tiny_policy)
    overwrite(newest / name)
    assert training.run().resumed_from == 4
    assert f"{newest} cannot be read ({name}: " in caplog.text


def test_checkpoints_of_other_weights_are_error(tiny_policy, tmp_path, caplog):
    training, newest = train_until_second_checkpoint("sft-lora", tmp_path, tiny_policy)
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


def test_without_complete_checkpoint_training_restarts_with_warning(tiny_policy, tmp_path, caplog):
    training, newest = train_until_second_checkpoint("sft", tmp_path, tiny_policy)
    for checkpoint in newest.parent.glob("checkpoint-*"):
        (checkpoint / "complete.json").unlink()
    assert training.run().resumed_from == 0
    assert "no checkpoint was written to its end; the training starts from the beginning" in caplog.text
