"""Build PEFT's LoRA config, after checking that the named layers exist; PEFT silently ignores those that do not."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from longreward.errors import PolicyError
from longreward.training.config import ALL_LINEAR, LoraSettings


def build_lora_config(lora: LoraSettings | None, model: Any, *, task: str = "CAUSAL_LM") -> Any:
    """Return PEFT's config of an adapter on `model`, or None where all weights are trained.

    PolicyError for a target or a module to save that the model does not have.
    """
    if lora is None:
        return None
    from peft import LoraConfig

    _check_layers(lora, model)
    targets = lora.target_modules
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        modules_to_save=list(lora.modules_to_save) or None,
        task_type=task,  # with SEQ_CLS, PEFT also trains and saves the head
    )


@contextmanager
def ignore_checkpointing_warnings() -> Iterator[None]:
    """Hide a warning about PEFT 0.21 and TRL 1.16: they use names with gradient_checkpointing, which transformers 5.23
    deprecates."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing` is deprecated", category=FutureWarning)
        yield


def _check_layers(lora: LoraSettings, model: Any) -> None:
    from torch.nn import Embedding, Linear
    from transformers.pytorch_utils import Conv1D

    modules = {name: module for name, module in model.named_modules() if name}
    for suffix in lora.modules_to_save:
        if not any(_ends_with(name, suffix) for name in modules):
            raise PolicyError(
                f"lora.modules_to_save: no module of this model is named {suffix!r}; there are {_last_parts(modules)}"
            )
    if lora.target_modules == ALL_LINEAR:
        return
    # The layers that can have an adapter; GPT-2's linear layers are Conv1D.
    layers = {name: module for name, module in modules.items() if isinstance(module, (Linear, Conv1D, Embedding))}
    pattern = lora.target_modules if isinstance(lora.target_modules, str) else None
    for target in [pattern] if pattern is not None else lora.target_modules:
        matches = [name for name in layers if (re.fullmatch(target, name) if pattern else _ends_with(name, target))]
        if not matches:
            raise PolicyError(
                f"lora.target_modules: no layer of this model is named {target!r}; there are {_last_parts(layers)}; or "
                f"give {ALL_LINEAR}"
            )
        if any(layers[name] is model.get_output_embeddings() for name in matches):
            raise PolicyError(
                f"lora.target_modules: {target!r} is the output embedding, which cannot have an adapter; leave it out, "
                "or train it fully: name it in lora.modules_to_save"
            )


def _ends_with(name: str, suffix: str) -> bool:
    return name == suffix or name.endswith(f".{suffix}")


def _last_parts(modules: dict[str, Any]) -> str:
    names = dict.fromkeys(name.rpartition(".")[2] for name in modules)
    return ", ".join(name for name in names if not name.isdigit())
