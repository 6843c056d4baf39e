"""Whether the files of a checkpoint can be read and are of the model at hand, told from their headers alone.

Sizes alone (checkpoints.py) do not tell a block that a disk lost, nor another model's weights under the same name.
Files of other kinds, as those of a model in parts, are left to whoever wrote them.
"""

import json
from pathlib import Path
from typing import Any


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
