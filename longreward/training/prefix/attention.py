"""Attention of a packed pair: prompt and chosen answer as one causal text, the rejected answer behind the same prompt.

    queries of [prompt | chosen]   over [prompt | chosen]      causal
    queries of [rejected]          over [prompt | rejected]    causal, aligned at the lower right

Two calls of plain causal attention, so that no mask of length x length is ever made. (The second call is as small as
the rejected answer; where torch has no kernel for its alignment, as on a CPU, torch makes a mask of that size.)

Imports torch and transformers at its top, so import it only where a training starts.
"""

from collections.abc import Callable
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


class SharedPrefixError(PolicyError):
    """A model cannot share prefixes, for the reason `reason`."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}: set train.prefix_sharing to off")
        self.reason = reason


class PairLengthsMissingError(PolicyError):
    """The lengths of a batch's pairs did not reach the attention."""


PairLengths = tuple[int, int, int]
"""Tokens of a pair's prompt, chosen and rejected answer."""

Causal = Callable[..., Tensor]
"""(module, query [1, heads, q, d], key and value [1, kv heads, k >= q, d], *, scaling, dropout, softcap, s_aux)
-> [1, q, heads, d]."""

NEUTRAL_KWARGS = frozenset({"position_ids", "use_cache", "output_attentions", "output_hidden_states"})
"""Keyword arguments that models pass to their attention and that do not change its result. transformers 5.23 passes
further ones that do (softcap, s_aux, indices, position_bias, cu_seq_lens_q, ...), and later versions will add more; so
what is not listed here or handled below is refused, never ignored."""


def attention_name(base: str) -> str:
    """What transformers calls this attention, made of the one that it calls `base`; registers it at its first use."""
    name = f"shared_prefix_{base.partition('_')[0]}"
    if name not in ALL_ATTENTION_FUNCTIONS:
        AttentionInterface.register(name, partial(_attend, CAUSAL[base]))
    return name


def _attend(
    causal: Causal,
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
    """[pairs, heads, row, d] in, [pairs, row, heads, d] out; what pads a row stays zero.

    PolicyError for an argument whose effect on a packed row is not known. `longest_pair` replaces the longest text of
    this batch where a self-check asks for the longest one of the data.
    """
    if pair_lengths is None:
        raise PairLengthsMissingError(
            "a model that is set up for shared prefixes was given texts one by one: a reference model that the trainer "
            "loaded by itself needs share_prefix() too, and every batch must come from PairCollator"
        )
    unknown = [name for name, given in kwargs.items() if given is not None and name not in NEUTRAL_KWARGS]
    if attention_mask is not None:
        unknown.append("attention_mask")
    if unknown:
        raise SharedPrefixError(
            f"{type(module).__name__} passes {', '.join(sorted(unknown))} to its attention, and shared prefixes cannot "
            "take that into account"
        )
    if is_causal is False:
        raise SharedPrefixError(f"{type(module).__name__} lets tokens see those behind them")
    longest = longest_pair or max(prompt + max(chosen, rejected) for prompt, chosen, rejected in pair_lengths)
    if sliding_window and 0 < sliding_window < longest:  # 0 and -1 mean that there is no window
        raise SharedPrefixError(
            f"a layer of this model sees {sliding_window:,} tokens back, and the longest pair has {longest:,}"
        )
    attend = partial(causal, module, scaling=scaling, dropout=dropout, softcap=softcap, s_aux=s_aux)
    rows = [
        _attend_pair(attend, query[row : row + 1], key[row : row + 1], value[row : row + 1], lengths)
        for row, lengths in enumerate(pair_lengths)
    ]
    return (rows[0] if len(rows) == 1 else torch.cat(rows)), None


def _attend_pair(attend: Causal, query: Tensor, key: Tensor, value: Tensor, lengths: PairLengths) -> Tensor:
    prompt, chosen, rejected = lengths
    first, end = prompt + chosen, prompt + chosen + rejected

    def of_rejected(states: Tensor) -> Tensor:
        return torch.cat([states[:, :, :prompt], states[:, :, first:end]], dim=2)

    parts = [
        attend(query[:, :, :first], key[:, :, :first], value[:, :, :first]),
        attend(query[:, :, first:end], of_rejected(key), of_rejected(value)),
    ]
    if (padding := query.shape[2] - end) > 0:
        parts.append(parts[0].new_zeros(1, padding, *parts[0].shape[2:]))
    return torch.cat(parts, dim=1)


def _sdpa(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scaling: float | None,
    dropout: float,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
) -> Tensor:
    if softcap is not None or s_aux is not None:
        # torch's kernel has no place for either between scores and softmax
        name = "s_aux" if softcap is None else "softcap"
        raise SharedPrefixError(
            f"{type(module).__name__} caps its scores or adds sinks to them ({name}), which sdpa cannot; eager and "
            "flash_attention_2 can (policy.attention)"
        )
    query, key = query.to(value.dtype), key.to(value.dtype)  # autocast leaves rotated ones in float32
    # Half precision on a GPU has a kernel for fewer key than query heads; elsewhere keys and values are repeated.
    grouped = query.is_cuda and query.dtype in (torch.float16, torch.bfloat16)
    if not grouped:
        key, value = _for_each_head(module, key), _for_each_head(module, value)
    out = functional.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=causal_lower_right(query.shape[2], key.shape[2]),  # plainly causal where both are of one length
        dropout_p=dropout,
        scale=scaling,
        enable_gqa=grouped and key.shape[1] != query.shape[1],
    )
    return out.transpose(1, 2)


def _eager(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scaling: float | None,
    dropout: float,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
) -> Tensor:
    key, value = _for_each_head(module, key), _for_each_head(module, value)
    scores = query @ key.transpose(2, 3) * (scaling if scaling is not None else query.shape[-1] ** -0.5)
    if softcap is not None:  # Gemma 2
        scores = torch.tanh(scores / softcap) * softcap
    visible = torch.ones(scores.shape[2:], dtype=torch.bool, device=scores.device).tril(key.shape[2] - query.shape[2])
    scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
    if s_aux is not None:  # gpt-oss: one learned logit a head that takes part in the softmax and has no value
        sinks = s_aux.reshape(1, -1, 1, 1).expand(scores.shape[0], -1, scores.shape[2], 1)
        scores = torch.cat([scores, sinks.to(scores.dtype)], dim=-1)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    if s_aux is not None:
        weights = weights[..., :-1]
    weights = functional.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2)


def _flash(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scaling: float | None,
    dropout: float,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
) -> Tensor:
    attend = ALL_ATTENTION_FUNCTIONS["flash_attention_2"]  # aligned at the lower right by itself
    # The model's own kernel gets what the model gives it, so that it caps its scores and adds sinks as it does alone.
    out: Tensor = attend(
        module, query, key, value, None, dropout=dropout, scaling=scaling, softcap=softcap, s_aux=s_aux, is_causal=True
    )[0]
    return out


def _for_each_head(module: Any, states: Tensor) -> Tensor:
    repeated: Tensor = repeat_kv(states, getattr(module, "num_key_value_groups", 1))
    return repeated


CAUSAL: dict[str, Causal] = {"sdpa": _sdpa, "eager": _eager, "flash_attention_2": _flash}
