"""Whether a model can train with shared prefixes: what its config rules out, and a pair tried both ways.

Imports torch and transformers at its top, so import it only where a training starts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from longreward.training.prefix.attention import CAUSAL, PairLengthsMissingError, SharedPrefixError
from longreward.training.prefix.sharing import PairCollator, share_prefix

TRIED = ((6, 4, 3), (5, 1, 5))  # tokens of prompt, chosen and rejected answer
TOLERANCE = 1e-4
"""Largest difference of the hidden states, as a share of their size, in float32. Rounding alone made at most 2e-5 in
random models of 2 to 80 layers; in bfloat16 it would make 0.01, under which a forgotten score cap is invisible."""


def unsupported_reason(model: Any, *, longest: int) -> str | None:
    """Why `model`, bare of any adapter, cannot share prefixes; None where it can.

    `longest` counts the tokens of the longest prompt with its longer answer. In a training on several processes all
    call it together, and the first one decides: under FSDP the others may not hold the weights yet.
    """
    reason = unsupported_config_reason(model, longest=longest)
    if reason is not None:
        return reason
    if not torch.distributed.is_initialized():
        return _reason_of_trial(model, longest)
    decided = [_reason_of_trial(model, longest) if torch.distributed.get_rank() == 0 else None]
    shared: str | None = broadcast_object_list(decided)[0]
    return shared


def unsupported_config_reason(model: Any, *, longest: int) -> str | None:
    """What rules it out before the model has weights."""
    config = model.config.get_text_config()
    attention = model.config._attn_implementation
    if attention not in CAUSAL:
        return f"its attention is {attention}; {', '.join(CAUSAL)} can share"
    if not getattr(model, "_supports_attention_backend", False):
        return f"{type(model).__name__} computes its attention by itself, not through transformers' interface"
    # Gemma's "vision" lets tokens of images alone see both ways. Gemma 3 halves its configured window where all do, so
    # this comes before the windows.
    both_ways = getattr(config, "use_bidirectional_attention", None) in (True, "all")
    if both_ways or getattr(config, "is_causal", True) is False:
        return "its tokens see those behind them (bidirectional attention)"
    other = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if other:
        return f"it has layers of {', '.join(sorted(other))}, which read a row as one text"
    window = getattr(config, "sliding_window", None)
    if window and 0 < window < longest:  # Qwen2-MoE says 0 where there is none
        return f"some of its layers see {window:,} tokens back, and the longest pair has {longest:,}"
    if hasattr(config, "output_router_logits") and getattr(config, "router_aux_loss_coef", None):
        return "its loss for balancing experts would count each prompt once (router_aux_loss_coef 0 leaves it out)"
    return None


def _reason_of_trial(model: Any, longest: int) -> str | None:
    try:
        difference = hidden_state_difference(model, longest=longest)
    except SharedPrefixError as error:
        return error.reason
    except PairLengthsMissingError:  # Nemotron in transformers 5.23
        return f"{type(model).__name__} does not pass keyword arguments on to its attention"
    except Exception as error:  # a model's own code on a packed row may raise anything, and must not end a training
        lines = str(error).strip().splitlines()
        return f"a self-check failed with {type(error).__name__}: {lines[0] if lines else ''}"
    if difference <= TOLERANCE:  # False for NaN
        return None
    return f"on a trial pair its hidden states differ by {difference:.2g} of their size from those of the texts alone"


@torch.no_grad()
def hidden_state_difference(model: Any, *, longest: int) -> float:
    """Largest difference between the hidden states of two small pairs packed and of their texts alone.

    As a share of their size; computed in float32 whatever the type of the weights, and by `eager` in place of flash
    attention, which takes 16-bit numbers only. `longest` is what windows of attention are held against.
    """
    generator = torch.Generator().manual_seed(0)
    top = model.get_input_embeddings().num_embeddings
    rows = [
        {
            name: torch.randint(0, top, (length,), generator=generator).tolist()
            for name, length in zip(("prompt_ids", "chosen_ids", "rejected_ids"), lengths, strict=True)
        }
        for lengths in TRIED
    ]
    device = model.get_input_embeddings().weight.device
    batch = PairCollator(pad_token_id=0)(rows)
    with _without_flash(model), _in_float32(model.base_model):
        alone = [
            _alone(model, row["prompt_ids"], row[side], device)
            for side in ("chosen_ids", "rejected_ids")
            for row in rows
        ]
        shared = share_prefix(model)
        try:
            pairs = batch["packed_pairs"]
            packed = model.base_model(
                input_ids=batch["input_ids"].to(device),
                packed_pairs={**pairs, "input_ids": pairs["input_ids"].to(device), "longest_pair": longest},
                use_cache=False,
            ).last_hidden_state
        finally:
            shared.remove()
    return max(_difference(side, packed[index, : len(side)]) for index, side in enumerate(alone))


@contextmanager
def _without_flash(model: Any) -> Iterator[None]:
    before = model.config._attn_implementation
    if before != "flash_attention_2":
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def _in_float32(backbone: nn.Module) -> Iterator[None]:
    """Lets each layer compute with float32 copies of its weights, which exist only while it runs.

    So a model of 16-bit weights needs no second copy of itself, only of one layer.
    """
    kept: dict[nn.Parameter, Tensor] = {}

    def widen(module: nn.Module, *_: Any, recurse: bool = True) -> None:
        for weight in module.parameters(recurse):
            if weight.is_floating_point() and weight.dtype != torch.float32 and weight not in kept:
                kept[weight] = weight.data
                weight.data = weight.data.float()

    def restore(module: nn.Module, *_: Any) -> None:
        for weight in module.parameters():
            if weight in kept:
                weight.data = kept.pop(weight)

    children = [
        one for child in backbone.children() for one in (child if isinstance(child, nn.ModuleList) else [child])
    ]
    hooks: list[Any] = []
    for child in children:
        hooks.append(child.register_forward_pre_hook(widen))
        hooks.append(child.register_forward_hook(restore))
    try:
        widen(backbone, recurse=False)
        yield
    finally:
        for hook in hooks:
            hook.remove()
        restore(backbone)


def _alone(model: Any, prompt: list[int], answer: list[int], device: torch.device) -> Tensor:
    ids = torch.tensor([prompt + answer], device=device)
    hidden: Tensor = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0, len(prompt) - 1 :]
    return hidden


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one.float() - other.float()).norm() / one.float().norm())
