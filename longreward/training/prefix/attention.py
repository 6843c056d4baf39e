"""Attention over packed texts: a text attends to the prefix that it shares and to itself, but not to other texts.

    queries of [document question-1]   over [document question-1]   causal
    queries of [question-2]            over [document question-2]   causal, aligned at the lower right

All calls are plain causal attention, so that no mask of length x length is needed. (A call has as many queries as a
text adds to the row; where torch has no kernel for its alignment, as on a CPU, torch builds a mask of that size.)

Imports torch and transformers at the top, so import it only where a training starts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.bias import causal_lower_right
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from longreward.errors import PolicyError
from longreward.models.shared_cache import unknown_arguments
from longreward.training.prefix.text_tree import Branch


class SharedPrefixError(PolicyError):
    """A model cannot share prefixes, for the reason `reason`."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}: set prefix_sharing to off")
        self.reason = reason


class PackedTextsMissingError(PolicyError):
    """The description of a batch's row did not reach the attention."""


class PackedTexts(TypedDict):
    """A micro batch as one row: the value of `packed_texts` in a batch, and of `packed_row` in the model."""

    input_ids: Tensor
    """[1, tokens]."""
    position_ids: Tensor
    """[1, tokens]: of each token in its own text."""
    answers: Tensor
    """[texts, 1 + longest answer]: the index in the row of each answer's tokens, after that of the token before it."""
    branches: tuple[Branch, ...]
    """Which tokens attend to which ones: see TextTree."""
    longest_text: NotRequired[int]
    """Of all data, in a self-check; otherwise this batch's longest text counts."""


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
    packed_row: PackedTexts | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend within each text of a packed row: [1, heads, tokens, d] in, [1, tokens, heads, d] out.

    PolicyError for an argument whose effect on a packed row is not known.
    """
    if packed_row is None:
        raise PackedTextsMissingError(
            "a model that is set up for shared prefixes was given texts one by one: a reference model that the trainer "
            "loaded by itself needs share_prefix() too, and every batch must come from PairCollator or ExampleCollator"
        )
    layer = type(module).__name__
    if unknown := unknown_arguments(attention_mask=attention_mask, **kwargs):
        raise SharedPrefixError(
            f"{layer} passes {', '.join(unknown)} to its attention, and shared prefixes cannot take that into account"
        )
    if is_causal is False:
        raise SharedPrefixError(f"{layer} lets tokens see those behind them")
    branches = packed_row["branches"]
    longest = packed_row.get("longest_text") or max(map(_token_count, branches))
    if sliding_window and 0 < sliding_window < longest:  # 0 and -1 mean that there is no window
        raise SharedPrefixError(
            f"a layer of this model sees {sliding_window:,} tokens back, and the longest text has {longest:,}"
        )
    options = AttentionOptions(scaling, dropout, softcap, s_aux)
    outputs = []
    for branch in branches:
        start, stop = branch[-1]
        keys, values = _select_tokens(key, branch), _select_tokens(value, branch)
        outputs.append(kernel(module, query[:, :, start:stop], keys, values, options))
    return torch.cat(outputs, dim=1), None


def _token_count(branch: Branch) -> int:
    return sum(stop - start for start, stop in branch)


def _select_tokens(states: Tensor, branch: Branch) -> Tensor:
    spans = [states[:, :, start:stop] for start, stop in branch]
    return spans[0] if len(spans) == 1 else torch.cat(spans, dim=2)


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
