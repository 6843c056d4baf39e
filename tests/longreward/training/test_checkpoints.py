import errno

import pytest
from safetensors import SafetensorError

from longreward.errors import StateError
from longreward.training import checkpoints
from longreward.training.checkpoints import (
    checkpoint_step,
    latest_checkpoint,
    mark_complete,
    publish_model,
    training_key,
)


@pytest.fixture
def fits(monkeypatch):
    """Every checkpoint fits the model: what is in it is the subject of test_damaged_checkpoints.py."""
    monkeypatch.setattr(checkpoints, "validate_checkpoint", lambda checkpoint, model: None)


def write_checkpoint(folder, step, *, complete=True):
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    if complete:
        mark_complete(checkpoint)
    return checkpoint


def test_the_highest_step_is_the_newest(tmp_path, fits):
    for step in (100, 20, 9):
        write_checkpoint(tmp_path, step)
    assert checkpoint_step(latest_checkpoint(tmp_path, None)) == 100


def test_a_checkpoint_without_its_mark_is_passed_over(tmp_path, fits):
    write_checkpoint(tmp_path, 20)
    write_checkpoint(tmp_path, 40, complete=False)
    assert checkpoint_step(latest_checkpoint(tmp_path, None)) == 20


def test_a_checkpoint_with_a_shortened_file_is_passed_over(tmp_path, fits):
    write_checkpoint(tmp_path, 20)
    (write_checkpoint(tmp_path, 40) / "model.safetensors").write_bytes(b"weigh")
    assert checkpoint_step(latest_checkpoint(tmp_path, None)) == 20


def test_no_folder_no_checkpoint(tmp_path):
    assert latest_checkpoint(tmp_path / "absent", None) is None


def test_a_model_appears_whole_and_takes_the_place_of_the_old_one(tmp_path):
    out = tmp_path / "models" / "sft"
    publish_model(out, lambda folder: (folder / "old").write_text("1") and None)
    publish_model(out, lambda folder: (folder / "new").write_text("2") and None)
    assert [path.name for path in out.iterdir()] == ["new"]
    assert [path.name for path in out.parent.iterdir()] == ["sft"]


def test_a_full_disk_leaves_the_old_model_and_nothing_half_written(tmp_path):
    out = tmp_path / "sft"
    publish_model(out, lambda folder: (folder / "old").write_text("1") and None)

    def fill_the_disk(folder):
        (folder / "part").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StateError, match="No space left"):
        publish_model(out, fill_the_disk)
    assert [path.name for path in out.iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["sft"]


def test_another_setting_model_or_data_is_another_training(tmp_path):
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


def test_a_disk_that_fills_up_under_the_weights_is_said_and_leaves_the_old_model(tmp_path):
    publish_model(tmp_path / "sft", lambda folder: (folder / "model.safetensors").write_bytes(b"old"))

    def write(folder):
        (folder / "model.safetensors").write_bytes(b"ne")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(StateError, match="No space left"):
        publish_model(tmp_path / "sft", write)
    assert [path.name for path in tmp_path.iterdir()] == ["sft"]
    assert (tmp_path / "sft/model.safetensors").read_bytes() == b"old"


def test_a_disk_that_fills_up_under_a_checkpoint_is_told_from_other_errors_of_torch(tmp_path):
    from longreward.training.error_advice import actionable_error

    with pytest.raises(StateError, match="a checkpoint cannot be written"), actionable_error(tmp_path):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 2083776 vs 2083664")
    with pytest.raises(RuntimeError, match="shapes"), actionable_error(tmp_path):
        raise RuntimeError("shapes cannot be multiplied")
