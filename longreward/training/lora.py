"""Low-rank adapters: which layers of a model get one, said by name and checked before any data is read."""

import re
from typing import Any

from longreward.errors import PolicyError
from longreward.training.config import ALL_LINEAR, LoraSettings


def build_lora_config(lora: LoraSettings | None, model: Any) -> Any:
    """PEFT's config of an adapter on `model`, or None where all weights are trained.

    Raises PolicyError for a target that no layer has; PEFT itself would go on with the others without a word.
    """
    if lora is None:
        return None
    from peft import LoraConfig

    targets = lora.target_modules
    if targets != ALL_LINEAR:
        _check_targets([targets] if isinstance(targets, str) else targets, model, regex=isinstance(targets, str))
    _check_whole_layers(lora.modules_to_save, model)
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        modules_to_save=list(lora.modules_to_save) or None,
        task_type="CAUSAL_LM",
    )


def _check_targets(targets: "tuple[str, ...] | list[str]", model: Any, *, regex: bool) -> None:
    layers = _layers(model)
    output = model.get_output_embeddings()
    for target in targets:
        found = [name for name in layers if (re.fullmatch(target, name) if regex else _ends_with(name, target))]
        if not found:
            raise PolicyError(
                f"lora.target_modules: no layer of this model is named {target!r}; there are {_known(layers)}; or "
                f"say {ALL_LINEAR}"
            )
        if any(layers[name] is output for name in found):
            raise PolicyError(
                f"lora.target_modules: {target!r} is the output embedding, which cannot have an adapter; leave it out, "
                "or train it whole: name it in lora.modules_to_save"
            )


def _check_whole_layers(names: tuple[str, ...], model: Any) -> None:
    modules = [name for name, _ in model.named_modules() if name]
    for wanted in names:
        if not any(_ends_with(name, wanted) for name in modules):
            last = dict.fromkeys(name.rpartition(".")[2] for name in modules)
            shown = ", ".join(name for name in last if not name.isdigit())
            raise PolicyError(f"lora.modules_to_save: no part of this model is named {wanted!r}; there are {shown}")


def _ends_with(name: str, wanted: str) -> bool:
    return name == wanted or name.endswith(f".{wanted}")


def _layers(model: Any) -> dict[str, Any]:
    """The layers that can have an adapter: linear ones (GPT-2's are Conv1D) and embeddings."""
    from torch.nn import Embedding, Linear
    from transformers.pytorch_utils import Conv1D

    return {name: module for name, module in model.named_modules() if isinstance(module, Linear | Conv1D | Embedding)}


def _known(layers: dict[str, Any]) -> str:
    return ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in layers))
