"""Checkpoints from which a killed training goes on, and the one moment in which a model appears.

    <state>/<key>/checkpoint-40/complete.json   written last: without it the checkpoint is half-written and passed over
    <out>                                       renamed into place from a hidden neighbour, whole or not at all

The key is a hash of all that the training depends on, so that no training goes on from another one's checkpoint.
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

MARK = "complete.json"

log = logging.getLogger(__name__)


def training_key(settings: str, *, model: str, data: Path) -> str:
    """Names a training by its settings, its data and the model that it starts from."""
    digest = hashlib.sha256(settings.encode())
    with data.open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    digest.update(model.encode())
    if Path(model).is_dir():
        digest.update(fingerprint(Path(model)).encode())
    return digest.hexdigest()[:16]


def mark_complete(checkpoint: Path) -> None:
    """Notes every file's size in a checkpoint that was just written."""
    unmark(checkpoint)
    sizes = {str(f.relative_to(checkpoint)): f.stat().st_size for f in checkpoint.rglob("*") if f.is_file()}
    part = checkpoint / f"{MARK}.part"
    part.write_text(json.dumps(sizes), encoding="utf-8")
    part.replace(checkpoint / MARK)


def unmark(checkpoint: Path) -> None:
    """Before a checkpoint that was passed over is written once more: half of each, it must not count as whole."""
    (checkpoint / MARK).unlink(missing_ok=True)


def latest_checkpoint(folder: Path, model: Any) -> Path | None:
    """The checkpoint with the highest step that was written to its end and fits `model`; None where none was begun.

    The log names those that are passed over. StateError where there are whole ones and none can be read.
    """
    unread = []
    for checkpoint in _by_step(folder):
        if not _is_complete(checkpoint):
            log.warning("%s was not written to its end; it is passed over", checkpoint)
        elif (reason := validate_checkpoint(checkpoint, model)) is None:
            return checkpoint
        else:
            log.warning("%s cannot be read (%s); it is passed over", checkpoint, reason)
            unread.append(f"{checkpoint.name}: {reason}")
    if unread:
        raise StateError(
            f"{folder}: no checkpoint of this training can be read ({'; '.join(unread)}); restore one, or delete the "
            "folder to start anew"
        )
    if folder.is_dir() and any(folder.glob("checkpoint-*")):
        log.warning("%s: no checkpoint was written to its end; the training starts anew", folder)
    return None


def _by_step(folder: Path) -> list[Path]:
    numbered = [(p.name.removeprefix("checkpoint-"), p) for p in folder.glob("checkpoint-*")]
    return [path for _, path in sorted(((int(step), path) for step, path in numbered if step.isdigit()), reverse=True)]


def _is_complete(checkpoint: Path) -> bool:
    try:
        sizes = json.loads((checkpoint / MARK).read_text(encoding="utf-8"))
        return all((checkpoint / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def checkpoint_step(checkpoint: Path) -> int:
    """The number of updates behind a checkpoint."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def publish_model(out: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` fill a folder and puts it at `out`, replacing what was there; StateError if the disk refuses."""
    from safetensors import SafetensorError

    part = out.with_name(f".{out.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        write(part)
        shutil.rmtree(out, ignore_errors=True)
        os.replace(part, out)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise StateError(
            f"{out}: the model cannot be written ({error}); free or grant the space and run again"
        ) from error


# Whether the files of a checkpoint can be read and are of the model at hand, told from their headers alone.
#
# Sizes alone (checkpoints.py) do not tell a block that a disk lost, nor another model's weights under the same name.
# Files of other kinds, as those of a model in parts, are left to whoever wrote them.


def validate_checkpoint(checkpoint: Path, model: Any) -> str | None:
    """Why a checkpoint cannot be gone on from, None where nothing speaks against it."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["global_step"]
    except (OSError, ValueError, KeyError) as error:
        return f"trainer_state.json: {error}"
    return _weights(checkpoint, model) or _optimizer(checkpoint, model)


def _weights(checkpoint: Path, model: Any) -> str | None:
    from safetensors import SafetensorError, safe_open

    shapes = {_plain(name): list(weight.shape) for name, weight in model.named_parameters()}
    for file in sorted(checkpoint.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as stored:
                for name in stored.keys():  # noqa: SIM118 (it is no mapping)
                    shape, own = list(stored.get_slice(name).get_shape()), shapes.get(_plain(name))
                    if own is not None and shape != own:
                        return f"{file.name}: {name} is {shape}, the model's own {own}"
        except (OSError, SafetensorError) as error:
            return f"{file.name}: {error}"
    return None


def _optimizer(checkpoint: Path, model: Any) -> str | None:
    import pickle

    import torch

    for name in ("optimizer.pt", "scheduler.pt"):
        file = checkpoint / name
        if not file.is_file():
            continue
        try:
            stored = torch.load(file, map_location="meta", mmap=True, weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            return f"{name}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        if name == "optimizer.pt" and "param_groups" in stored:
            held = sum(len(group["params"]) for group in stored["param_groups"])
            trained = sum(weight.requires_grad for weight in model.parameters())
            if held != trained:
                return f"{name}: it holds {held} weights, and {trained} are trained"
    return None


def _plain(name: str) -> str:
    """A weight's name as it is saved: PEFT leaves the adapter's own name out."""
    return name.replace(".default.", ".").replace(".modules_to_save.", ".")
