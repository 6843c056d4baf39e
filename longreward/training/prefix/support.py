"""Check whether a model can share prefixes: by its config, then by an exact comparison on a few small texts.

Imports torch and transformers at the top, so import it only where a training starts.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from longreward.errors import PolicyError
from longreward.training.config import PrefixSharing
from longreward.training.prefix.attention import KERNELS, PackedTexts, PackedTextsMissingError, SharedPrefixError
from longreward.training.prefix.sharing import PACKED_TEXTS, ExampleCollator, share_prefix
from longreward.training.training_data import IGNORE_INDEX

logger = logging.getLogger(__name__)

TRIAL_TEXTS = ((40, 6, 4), (40, 6, 3), (40, 9, 2), (5, 2, 3))
"""Tokens of document, question and answer: the first two texts share their prompt, the third one shares their document,
and the last one shares nothing."""
TOLERANCE = 1e-4
"""Largest relative difference of the hidden states in float32. Rounding alone caused at most 2e-5 in random models of
2 to 80 layers; in bfloat16 it would cause 0.01, which would hide a forgotten score cap."""


def shares_prefixes(setting: PrefixSharing, model: Any, *, longest: int, section: str) -> bool:
    """Return whether shared prefixes are computed once; the log names the reason why not.

    PolicyError if the `setting` in `section` is `on` and the model cannot.
    """
    reason = None if setting == "off" else unsupported_reason(model, longest=longest)
    if reason is None:
        return setting != "off"
    if setting == "on":
        raise PolicyError(f"{section}.prefix_sharing is on, and this model cannot: {reason}; set it to auto or off")
    logger.warning("prefix sharing is off, so prefixes that texts share are computed for each text: %s", reason)
    return False


def unsupported_reason(model: Any, *, longest: int) -> str | None:
    """Return why `model`, without any adapter, cannot share prefixes; None where it can.

    `longest` counts the tokens of the longest text. In a training on several processes all
    call it together and the first one decides: under FSDP the others may not hold the weights yet.
    """
    reason = unsupported_config_reason(model, longest=longest)
    if reason is not None:
        return reason
    if not torch.distributed.is_initialized():
        return _trial_reason(model, longest)
    reasons = [_trial_reason(model, longest) if torch.distributed.get_rank() == 0 else None]
    shared: str | None = broadcast_object_list(reasons)[0]
    return shared


def unsupported_config_reason(model: Any, *, longest: int) -> str | None:
    """Return what the config alone rules out; `model` may be on the meta device."""
    config = model.config.get_text_config()
    attention = model.config._attn_implementation
    if attention not in KERNELS:
        return f"its attention is {attention}; {', '.join(KERNELS)} can share"
    if not getattr(model, "_supports_attention_backend", False):
        return f"{type(model).__name__} computes its attention by itself, not through transformers' interface"
    # Gemma's "vision" lets only image tokens see both ways. Gemma 3 halves its configured window where all tokens do,
    # so this is checked before the window.
    bidirectional = getattr(config, "use_bidirectional_attention", None) in (True, "all")
    if bidirectional or getattr(config, "is_causal", True) is False:
        return "its tokens see those behind them (bidirectional attention)"
    other_layers = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if other_layers:
        return f"it has layers of {', '.join(sorted(other_layers))}, which read a row as one text"
    window = getattr(config, "sliding_window", None)
    if window and 0 < window < longest:  # Qwen2-MoE has 0 where there is none
        return f"some of its layers see {window:,} tokens back, and the longest text has {longest:,}"
    if hasattr(config, "output_router_logits") and getattr(config, "router_aux_loss_coef", None):
        return "its loss for balancing experts would count shared tokens once (router_aux_loss_coef 0 leaves it out)"
    return None


def _trial_reason(model: Any, longest: int) -> str | None:
    try:
        difference = hidden_state_difference(model, longest=longest)
    except SharedPrefixError as error:
        return error.reason
    except PackedTextsMissingError:  # Nemotron in transformers 5.23
        return f"{type(model).__name__} does not pass keyword arguments on to its attention"
    except Exception as error:  # a model's own code may raise anything on a packed row, and must not end a training
        lines = str(error).strip().splitlines()
        return f"a self-check failed with {type(error).__name__}: {lines[0] if lines else ''}"
    if difference <= TOLERANCE:  # False for NaN
        return None
    return f"on trial texts its hidden states differ by {difference:.2g} of their size from those of the texts alone"


@torch.no_grad()
def hidden_state_difference(model: Any, *, longest: int) -> float:
    """Return the largest relative difference between the hidden states of packed texts and of the texts alone.

    Computed in float32 whatever the dtype of the weights, and with `eager` in place of flash attention, which accepts
    16-bit numbers only. Sliding windows are compared with `longest`, the longest text of the data.
    """
    rows = _trial_rows(model.get_input_embeddings().num_embeddings)
    device = model.get_input_embeddings().weight.device
    batch = ExampleCollator(pad_token_id=0)(rows)
    packed: PackedTexts = batch[PACKED_TEXTS]
    packed = {**packed, "longest_text": longest}
    for name in ("input_ids", "position_ids", "answers"):
        packed[name] = packed[name].to(device)
    with _without_flash_attention(model), _compute_in_float32(model.base_model):
        separate = []
        for row, (document, question, _) in zip(rows, TRIAL_TEXTS, strict=True):
            ids = torch.tensor([row["input_ids"]], device=device)
            hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
            separate.append(hidden[document + question - 1 :].float())
        shared = share_prefix(model)
        try:
            input_ids = batch["input_ids"].to(device)
            states = model.base_model(input_ids=input_ids, packed_texts=packed, use_cache=False).last_hidden_state
        finally:
            shared.remove()
    return max(
        float((alone - together[: len(alone)].float()).norm() / alone.norm())
        for alone, together in zip(separate, states, strict=True)
    )


def _trial_rows(vocabulary: int) -> list[dict[str, list[int]]]:
    generator = torch.Generator().manual_seed(0)
    sampled: dict[tuple[int, ...], list[int]] = {}  # equal lengths stand for equal tokens

    def tokens(*lengths: int) -> list[int]:
        ids = torch.randint(0, vocabulary, lengths[-1:], generator=generator).tolist()
        return sampled.setdefault(lengths, ids)

    return [
        {
            "input_ids": tokens(document) + tokens(document, question) + tokens(document, question, answer),
            "labels": [IGNORE_INDEX] * (document + question) + [0] * answer,
        }
        for document, question, answer in TRIAL_TEXTS
    ]


@contextmanager
def _without_flash_attention(model: Any) -> Iterator[None]:
    attention = model.config._attn_implementation
    if attention != "flash_attention_2":
        yield
        return
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(attention)


@contextmanager
def _compute_in_float32(backbone: nn.Module) -> Iterator[None]:
    """Let each layer compute with float32 copies of its weights, which exist only while it runs.

    So a model of 16-bit weights needs a second copy of one layer, not of itself.
    """
    originals: dict[nn.Parameter, Tensor] = {}

    def widen(module: nn.Module, *_: Any, recurse: bool = True) -> None:
        for weight in module.parameters(recurse):
            if weight.is_floating_point() and weight.dtype != torch.float32 and weight not in originals:
                originals[weight] = weight.data
                weight.data = weight.data.float()

    def restore(module: nn.Module, *_: Any) -> None:
        for weight in module.parameters():
            if weight in originals:
                weight.data = originals.pop(weight)

    hooks: list[Any] = []
    for child in backbone.children():
        for layer in child if isinstance(child, nn.ModuleList) else [child]:
            hooks += [layer.register_forward_pre_hook(widen), layer.register_forward_hook(restore)]
    try:
        widen(backbone, recurse=False)
        yield
    finally:
        for hook in hooks:
            hook.remove()
        restore(backbone)
