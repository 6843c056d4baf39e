"""Whether a model can train with shared prefixes: what its config rules out, and a pair tried both ways.

Imports torch and transformers at its top, so import it only where a training starts.
"""

from typing import Any

import torch
from torch import Tensor

from longreward.training.prefix.attention import CAUSAL
from longreward.training.prefix.sharing import PairCollator, share_prefix

TRIED = ((6, 4, 3), (5, 1, 5))  # tokens of prompt, chosen and rejected answer
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
OF_HALF_PRECISION = 0.05  # rounding alone was seen to reach 0.01; a forgotten mask makes 0.3 and more


def reason_against(model: Any, *, longest: int) -> str | None:
    """Why `model`, bare of any adapter, cannot share prefixes; None where it can.

    `longest` counts the tokens of the longest prompt with its longer answer.
    """
    return reason_of_config(model, longest=longest) or _of_trial(model)


def reason_of_config(model: Any, *, longest: int) -> str | None:
    """What rules it out before the model has weights."""
    config = model.config.get_text_config()
    attention = model.config._attn_implementation
    if attention not in CAUSAL:
        return f"its attention is {attention}; {', '.join(CAUSAL)} can share"
    if not getattr(model, "_supports_attention_backend", False):
        return f"{type(model).__name__} computes its attention by itself, not through transformers' interface"
    other = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if other:
        return f"it has layers of {', '.join(sorted(other))}, which read a row as one text"
    window = getattr(config, "sliding_window", None)
    if window is not None and window < longest:
        return f"some of its layers see {window:,} tokens back, and the longest pair has {longest:,}"
    if hasattr(config, "output_router_logits") and getattr(config, "router_aux_loss_coef", None):
        return "its loss for balancing experts would count each prompt once (router_aux_loss_coef 0 leaves it out)"
    return None


@torch.no_grad()
def _of_trial(model: Any) -> str | None:
    """Compares the hidden states of two small pairs, packed and each text alone."""
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
    alone = [
        _alone(model, row["prompt_ids"], row[side], device) for side in ("chosen_ids", "rejected_ids") for row in rows
    ]
    shared = share_prefix(model)
    try:
        pairs = batch["packed_pairs"]
        packed = model.base_model(
            input_ids=batch["input_ids"].to(device),
            packed_pairs={**pairs, "input_ids": pairs["input_ids"].to(device)},
            use_cache=False,
        ).last_hidden_state
    finally:
        shared.remove()
    worst = max(_difference(side, packed[index, : len(side)]) for index, side in enumerate(alone))
    if worst <= TOLERANCE.get(model.dtype, OF_HALF_PRECISION):
        return None
    return f"on a trial pair its hidden states differ by {worst:.2g} of their size from those of the texts alone"


def _alone(model: Any, prompt: list[int], answer: list[int], device: torch.device) -> Tensor:
    ids = torch.tensor([prompt + answer], device=device)
    hidden: Tensor = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0, len(prompt) - 1 :]
    return hidden


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one.float() - other.float()).norm() / one.float().norm())
