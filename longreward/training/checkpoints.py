"""Checkpoints from which a killed training resumes, and the atomic publication of the trained model.

    <state>/<key>/checkpoint-40/complete.json   written last: without it the checkpoint is partial and ignored
    <out>                                       renamed into place from a hidden sibling: complete or absent

The key is a hash of all that the training depends on, so that no training resumes from another one's checkpoint.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from longreward.errors import StateError
from longreward.models.model_ref import fingerprint
from longreward.utils.jsonl import open_atomic

MARK = "complete.json"

log = logging.getLogger(__name__)


def training_key(settings: str, *, model: str, data: Path) -> str:
    """Hash the settings, the data and the model that a training starts from."""
    digest = hashlib.sha256(settings.encode())
    with data.open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    digest.update(model.encode())
    # A folder or file may hold other weights under the same name; a hub id's revision is part of the settings.
    if Path(model).exists():
        digest.update(fingerprint(Path(model)).encode())
    return digest.hexdigest()[:16]


def mark_complete(checkpoint: Path) -> None:
    """Record the size of every file of a checkpoint that was just written."""
    unmark(checkpoint)
    sizes = {str(f.relative_to(checkpoint)): f.stat().st_size for f in checkpoint.rglob("*") if f.is_file()}
    with open_atomic(checkpoint / MARK) as file:
        json.dump(sizes, file)


def unmark(checkpoint: Path) -> None:
    """Remove the mark before a rejected checkpoint is written again: a mixture of both must not count as complete."""
    (checkpoint / MARK).unlink(missing_ok=True)


def latest_checkpoint(folder: Path, model: Any) -> Path | None:
    """Return the complete checkpoint with the highest step that fits `model`; None where there is no complete one.

    Skipped checkpoints are logged. StateError where there are complete ones and none can be read.
    """
    unreadable = []
    for checkpoint in sorted(folder.glob("checkpoint-*[0-9]"), key=checkpoint_step, reverse=True):
        try:
            sizes = json.loads((checkpoint / MARK).read_text(encoding="utf-8"))
            complete = all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
        except (OSError, ValueError):
            complete = False
        if not complete:
            log.warning("%s was not written to its end; it is skipped", checkpoint)
        elif (problem := find_problem(checkpoint, model)) is None:
            return checkpoint
        else:
            log.warning("%s cannot be read (%s); it is skipped", checkpoint, problem)
            unreadable.append(f"{checkpoint.name}: {problem}")
    if unreadable:
        raise StateError(
            f"{folder}: no checkpoint of this training can be read ({'; '.join(unreadable)}); restore one, or delete "
            "the folder to start from the beginning"
        )
    if any(folder.glob("checkpoint-*")):
        log.warning("%s: no checkpoint was written to its end; the training starts from the beginning", folder)
    return None


def checkpoint_step(checkpoint: Path) -> int:
    """Return the number of updates before a checkpoint."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def find_problem(checkpoint: Path, model: Any) -> str | None:
    """Return why a complete checkpoint cannot be resumed from, None where nothing is wrong.

    File sizes reveal neither a block that the disk lost nor another model's weights. This reads the headers of the
    files only. Other files, such as those of a sharded model, are not checked.
    """
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["global_step"]
    except (OSError, ValueError, KeyError) as error:
        return f"trainer_state.json: {error}"
    return _weights_problem(checkpoint, model) or _optimizer_problem(checkpoint, model)


def _weights_problem(checkpoint: Path, model: Any) -> str | None:
    from safetensors import SafetensorError, safe_open

    shapes = {_saved_name(name): list(weight.shape) for name, weight in model.named_parameters()}
    for file in sorted(checkpoint.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 (not a mapping)
                    saved, expected = list(tensors.get_slice(name).get_shape()), shapes.get(_saved_name(name))
                    if expected is not None and saved != expected:
                        return f"{file.name}: {name} is {saved}, the model's own {expected}"
        except (OSError, SafetensorError) as error:
            return f"{file.name}: {error}"
    return None


def _optimizer_problem(checkpoint: Path, model: Any) -> str | None:
    import pickle

    import torch

    for name in ("optimizer.pt", "scheduler.pt"):
        file = checkpoint / name
        if not file.is_file():
            continue
        try:
            # On the meta device, so that only the structure of a large optimizer state is read.
            state = torch.load(file, map_location="meta", mmap=True, weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            return f"{name}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        if name == "optimizer.pt" and "param_groups" in state:
            saved = sum(len(group["params"]) for group in state["param_groups"])
            trained = sum(weight.requires_grad for weight in model.parameters())
            if saved != trained:
                return f"{name}: it holds {saved} weights, and {trained} are trained"
    return None


def _saved_name(name: str) -> str:
    """Return a weight's name as it is saved: PEFT leaves out the name of the adapter."""
    return name.replace(".default.", ".").replace(".modules_to_save.", ".")


def publish_model(out: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary folder, then rename it to `out`, replacing what was there.

    StateError if the disk refuses; nothing partial is left then.
    """
    from safetensors import SafetensorError

    temporary = out.with_name(f".{out.name}.part")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        write(temporary)
        shutil.rmtree(out, ignore_errors=True)
        os.replace(temporary, out)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise StateError(
            f"{out}: the model cannot be written ({error}); free or grant the space and run again"
        ) from error
