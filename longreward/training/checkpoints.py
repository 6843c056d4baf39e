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
from longreward.training.checkpoint_validation import validate_checkpoint

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


def resumable(folder: Path, model: Any) -> Path | None:
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


def step_of(checkpoint: Path) -> int:
    """The number of updates behind a checkpoint."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def publish(out: Path, write: Callable[[Path], None]) -> None:
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
