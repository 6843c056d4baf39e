"""Attention over packed pairs: the rejected response attends to the prompt, but not to the chosen response before it.

    queries of [prompt | chosen]   over [prompt | chosen]      causal
    queries of [rejected]          over [prompt | rejected]    causal, aligned at the lower right

Both are plain causal attention, so that no mask of length x length is needed. (The second call is as small as the
rejected response; where torch has no kernel for its alignment, as on a CPU, torch builds a mask of that size.)

Imports torch and transformers at the top, so import it only where a training starts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.bias import causal_lower_right
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from longreward.errors import PolicyError
from longreward.models.shared_cache import unknown_arguments


class SharedPrefixError(PolicyError):
    """A model cannot share prefixes, for the reason `reason`."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}: set train.prefix_sharing to off")
        self.reason = reason


class PairLengthsMissingError(PolicyError):
    """The lengths of a batch's pairs did not reach the attention."""


PairLengths = tuple[int, int, int]
"""Tokens of a pair's prompt, chosen and rejected response."""


@dataclass(frozen=True)
class AttentionOptions:
    """What a layer passes to its attention besides the states."""

    scaling: float | None = None
    dropout: float = 0.0
    softcap: float | None = None
    """Gemma 2: scores become softcap * tanh(scores / softcap)."""
    s_aux: Tensor | None = None
    """gpt-oss: one learned logit per head that takes part in the softmax and has no value (a sink)."""


Kernel = Callable[[Any, Tensor, Tensor, Tensor, AttentionOptions], Tensor]
"""Causal attention aligned at the lower right: (module, query [1, heads, q, d], key and value [1, kv heads, k >= q, d],
options) -> [1, q, heads, d]."""


def attention_name(base: str) -> str:
    """Return the name of the shared-prefix attention with kernel `base`; registers it in transformers at first use."""
    name = f"shared_prefix_{base.partition('_')[0]}"
    if name not in ALL_ATTENTION_FUNCTIONS:
        AttentionInterface.register(name, partial(shared_prefix_attention, KERNELS[base]))
    return name


def shared_prefix_attention(
    kernel: Kernel,
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    pair_lengths: tuple[PairLengths, ...] | None = None,
    longest_pair: int | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend within each packed pair: [pairs, heads, row, d] in, [pairs, row, heads, d] out; padding stays zero.

    `longest_pair` replaces the longest text of this batch where a self-check asks for the longest one of the data.
    PolicyError for an argument whose effect on a packed row is not known.
    """
    if pair_lengths is None:
        raise PairLengthsMissingError(
            "a model that is set up for shared prefixes was given texts one by one: a reference model that the trainer "
            "loaded by itself needs share_prefix() too, and every batch must come from PairCollator"
        )
    layer = type(module).__name__
    if unknown := unknown_arguments(attention_mask=attention_mask, **kwargs):
        raise SharedPrefixError(
            f"{layer} passes {', '.join(unknown)} to its attention, and shared prefixes cannot take that into account"
        )
    if is_causal is False:
        raise SharedPrefixError(f"{layer} lets tokens see those behind them")
    longest = longest_pair or max(prompt + max(chosen, rejected) for prompt, chosen, rejected in pair_lengths)
    if sliding_window and 0 < sliding_window < longest:  # 0 and -1 mean that there is no window
        raise SharedPrefixError(
            f"a layer of this model sees {sliding_window:,} tokens back, and the longest pair has {longest:,}"
        )
    options = AttentionOptions(scaling, dropout, softcap, s_aux)

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return kernel(module, query, key, value, options)

    rows = [
        _attend_pair(attend, query[row : row + 1], key[row : row + 1], value[row : row + 1], lengths)
        for row, lengths in enumerate(pair_lengths)
    ]
    return (rows[0] if len(rows) == 1 else torch.cat(rows)), None


def _attend_pair(
    attend: Callable[[Tensor, Tensor, Tensor], Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: PairLengths,
) -> Tensor:
    prompt, chosen, rejected = lengths
    chosen_end, rejected_end = prompt + chosen, prompt + chosen + rejected

    def prompt_and_rejected(states: Tensor) -> Tensor:
        return torch.cat([states[:, :, :prompt], states[:, :, chosen_end:rejected_end]], dim=2)

    outputs = [
        attend(query[:, :, :chosen_end], key[:, :, :chosen_end], value[:, :, :chosen_end]),
        attend(query[:, :, chosen_end:rejected_end], prompt_and_rejected(key), prompt_and_rejected(value)),
    ]
    if (padding := query.shape[2] - rejected_end) > 0:
        outputs.append(outputs[0].new_zeros(1, padding, *outputs[0].shape[2:]))
    return torch.cat(outputs, dim=1)


def sdpa_kernel(module: Any, query: Tensor, key: Tensor, value: Tensor, options: AttentionOptions) -> Tensor:
    """Attend with torch's scaled_dot_product_attention, which supports neither `softcap` nor `s_aux`."""
    if options.softcap is not None or options.s_aux is not None:
        name = "s_aux" if options.softcap is None else "softcap"
        raise SharedPrefixError(
            f"{type(module).__name__} caps its scores or adds sinks to them ({name}), which sdpa cannot; eager and "
            "flash_attention_2 can (policy.attention)"
        )
    query, key = query.to(value.dtype), key.to(value.dtype)  # autocast leaves rotary states in float32
    # Half precision on a GPU has a kernel for grouped-query attention; elsewhere keys and values are repeated.
    grouped = query.is_cuda and query.dtype in (torch.float16, torch.bfloat16)
    if not grouped:
        key, value = _repeat_heads(module, key), _repeat_heads(module, value)
    out = functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=causal_lower_right(query.shape[2], key.shape[2]),  # plainly causal where both have one length
        dropout_p=options.dropout,
        scale=options.scaling,
        enable_gqa=grouped and key.shape[1] != query.shape[1],
    )
    return out.transpose(1, 2)


def eager_kernel(module: Any, query: Tensor, key: Tensor, value: Tensor, options: AttentionOptions) -> Tensor:
    """Attend with explicit scores, as transformers' eager attention does."""
    key, value = _repeat_heads(module, key), _repeat_heads(module, value)
    scaling = options.scaling if options.scaling is not None else query.shape[-1] ** -0.5
    scores = query @ key.transpose(2, 3) * scaling
    if options.softcap is not None:
        scores = torch.tanh(scores / options.softcap) * options.softcap
    visible = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).tril(key.shape[2] - query.shape[2])
    scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
    if options.s_aux is not None:
        sinks = options.s_aux.reshape(1, -1, 1, 1).expand(scores.shape[0], -1, scores.shape[2], 1)
        scores = torch.cat([scores, sinks.to(scores.dtype)], dim=-1)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    if options.s_aux is not None:
        weights = weights[..., :-1]
    weights = functional.dropout(weights, p=options.dropout, training=module.training)
    return (weights @ value).transpose(1, 2)


def flash_kernel(module: Any, query: Tensor, key: Tensor, value: Tensor, options: AttentionOptions) -> Tensor:
    """Attend with the model's own flash attention, which aligns at the lower right and handles caps and sinks."""
    out: Tensor = ALL_ATTENTION_FUNCTIONS["flash_attention_2"](
        module,
        query,
        key,
        value,
        None,
        dropout=options.dropout,
        scaling=options.scaling,
        softcap=options.softcap,
        s_aux=options.s_aux,
        is_causal=True,
    )[0]
    return out


def _repeat_heads(module: Any, states: Tensor) -> Tensor:
    """Repeat the heads of keys or values for each query head of their group."""
    repeated: Tensor = repeat_kv(states, getattr(module, "num_key_value_groups", 1))
    return repeated


KERNELS: dict[str, Kernel] = {"sdpa": sdpa_kernel, "eager": eager_kernel, "flash_attention_2": flash_kernel}
