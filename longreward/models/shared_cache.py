"""One KV cache of a prompt for its n responses, which keep only their own keys and values.

    response token --query--> scores over the prompt's keys      [responses of the prompt together, prompt tokens]
                         \--> scores over the response's keys    [each response, its tokens]
                              one softmax over both --> values

The queries of all responses to a prompt are one matrix, so the prompt's keys and values are read once per step and not
once per response (Juravsky et al. 2024, "Hydragen"). At 64k tokens of an 8B model the prompt's cache takes 8 GB; ten
copies would take 80 GB.

Imports torch and transformers at the top, so import it only where a model is used.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from longreward.errors import PolicyError
from longreward.models.kv_cache import (
    PreallocatedLayer,
    PrefillState,
    ReplicatedCache,
    cache_keyword,
    preallocated_cache,
    prefill,
)

ATTENTION = "shared_cache"
PROBE_LENGTH = 64
TOLERANCES = {torch.float32: 1e-4}
# Rounding alone gives 0.01 to 0.03 with a prompt of PROBE_LENGTH tokens, but 0.07 with five special tokens (SmolLM2).
HALF_PRECISION_TOLERANCE = 0.1

# Keyword arguments that models pass to their attention and that do not change its result. transformers 5.23 passes
# others that do (softcap, s_aux, indices, position_bias, cu_seq_lens_q, …), and later versions will add more; so an
# argument that is neither listed here nor handled is refused, never ignored.
NEUTRAL_KWARGS = frozenset({"position_ids", "use_cache", "output_attentions", "output_hidden_states"})

_reasons: "WeakKeyDictionary[Any, str]" = WeakKeyDictionary()  # of models that were checked; empty where they can share


class SharedCacheError(PolicyError):
    """A model cannot share a prompt's cache."""


class SharedPrefixCache:
    """The prompts' caches once, and the responses' own tokens as rows of a batch, in the order of the prompts."""

    def __init__(self, model: Any, state: PrefillState, n: int) -> None:
        self.model = model
        # Per layer keys and values [prompts, kv heads, prompt tokens, d].
        self.prompts = [(layer.keys, layer.values) for layer in state.cache.layers]
        # Added to scores [prompts, 1, 1, 1, prompt tokens]: padding gets no weight.
        self.padding = None
        if not bool(state.present.all()):
            zeros = torch.zeros(state.present.shape, device=state.present.device)
            self.padding = zeros.masked_fill(~state.present, -torch.inf)[:, None, None, None]
        self.cache = preallocated_cache(model.config)
        self._cache_kwargs = {cache_keyword(model): self.cache}
        lengths = state.present.sum(dim=1)
        self.positions = lengths.repeat_interleave(n)[:, None]
        self._arrange(torch.arange(len(lengths), device=lengths.device).repeat_interleave(n))

    @contextmanager
    def attention(self) -> Iterator[None]:
        """Let the model attend to the shared prompts in the block, which all calls of `next_logits` need.

        Once per generation, not per token: transformers visits every module, which takes 1.7 ms with 32 layers.
        """
        if ATTENTION not in ALL_ATTENTION_FUNCTIONS:
            AttentionInterface.register(ATTENTION, shared_cache_attention)
        attention = self.model.config._attn_implementation
        self.model.set_attn_implementation(ATTENTION)
        try:
            yield
        finally:
            self.model.set_attn_implementation(attention)

    def next_logits(self, tokens: Tensor) -> Tensor:
        """Add the newest tokens [responses] and return the logits that follow [responses, vocabulary].

        Raises SharedCacheError outside of `attention`, or if the model's attention needs what this one does not
        compute.
        """
        if self.model.config._attn_implementation != ATTENTION:  # another attention would ignore the prompts
            raise SharedCacheError("a shared cache is used outside of its attention()")
        output = self.model(
            input_ids=tokens[:, None],
            position_ids=self.positions,
            shared_prompts=self,
            **self._cache_kwargs,
        )
        self.positions = self.positions + 1
        logits: Tensor = output.logits[:, -1]
        return logits

    def select_rows(self, rows: Tensor) -> bool:
        """Keep only these responses, in ascending order; return True, since this is always possible."""
        self.cache.batch_select_indices(rows)
        self.positions = self.positions[rows]
        self._arrange(self.prompt_of_row[rows])
        return True

    def group_by_prompt(self, states: Tensor) -> Tensor:
        """Arrange rows [rows, …] as [prompts, longest group, …], with zeros where a prompt has fewer responses."""
        if self.slots is not None:
            grouped = states.new_zeros(len(self.prompts[0][0]) * self.group_size, *states.shape[1:])
            grouped[self.slots.to(states.device)] = states  # with a device map, layers are on several GPUs
            states = grouped
        return states.view(-1, self.group_size, *states.shape[1:])

    def ungroup(self, grouped: Tensor) -> Tensor:
        """Return the rows of `group_by_prompt`."""
        states = grouped.flatten(0, 1)
        return states if self.slots is None else states[self.slots.to(states.device)]

    def _arrange(self, prompt_of_row: Tensor) -> None:
        self.prompt_of_row = prompt_of_row
        counts = prompt_of_row.bincount(minlength=len(self.prompts[0][0]))
        self.group_size = int(counts.max())
        # The place of each row among the padded groups; None where all groups are full and rows need not be copied.
        self.slots = None
        if bool((counts != self.group_size).any()):
            first_rows = counts.cumsum(0) - counts
            number = torch.arange(len(prompt_of_row), device=counts.device) - first_rows[prompt_of_row]
            self.slots = prompt_of_row * self.group_size + number


def shared_cache_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    shared_prompts: SharedPrefixCache | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend to the prompt and to the response's own tokens: [rows, heads, 1, d] in, [rows, 1, heads, d] out.

    `key` and `value` hold the responses' own tokens, the newest one included: [rows, kv heads, tokens, d].
    """
    if shared_prompts is None:
        raise SharedCacheError(f"{type(module).__name__} does not get the arguments of the model's forward pass")
    if unknown := unknown_arguments(attention_mask=attention_mask, **kwargs):
        raise SharedCacheError(f"{type(module).__name__} passes {', '.join(unknown)} to its attention")
    rows, heads, _, size = query.shape
    kv_heads, own_tokens = key.shape[1:3]
    scaling = scaling if scaling is not None else size**-0.5
    # [rows, kv heads, query heads of a key head, d]: those are adjacent (transformers' repeat_kv).
    queries = query.to(key.dtype).view(rows, kv_heads, -1, size)
    own_scores = _product(queries, key.transpose(2, 3))
    prompt_key, prompt_value = shared_prompts.prompts[module.layer_idx]
    # [prompts, kv heads, responses * query heads, d]: one matrix for all responses to a prompt.
    grouped = shared_prompts.group_by_prompt(queries).transpose(1, 2)
    scores = _product(grouped.flatten(2, 3), prompt_key.transpose(2, 3)).view(*grouped.shape[:4], -1)
    if shared_prompts.padding is not None:
        scores = scores + shared_prompts.padding.to(scores.device)
    scores = shared_prompts.ungroup(scores.transpose(1, 2))
    weights = (torch.cat([scores, own_scores], dim=-1) * scaling).softmax(dim=-1).to(value.dtype)
    prompt_weights = shared_prompts.group_by_prompt(weights[..., :-own_tokens]).transpose(1, 2)
    output = (prompt_weights.flatten(2, 3) @ prompt_value).view(grouped.shape)
    output = shared_prompts.ungroup(output.transpose(1, 2)) + weights[..., -own_tokens:] @ value
    return output.reshape(rows, 1, heads, size), None


def unknown_arguments(**kwargs: Any) -> list[str]:
    """Return the sorted names of arguments of an attention that are set and may change its result."""
    return sorted(name for name, argument in kwargs.items() if argument is not None and name not in NEUTRAL_KWARGS)


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Return the batched matrix product [a, b, rows, columns] in float32."""
    if left.is_cuda and left.dtype in (torch.float16, torch.bfloat16):
        # Rounded to 16 bits, scores of about 10 would be off by 0.03, and their weights by 3 %.
        product = torch.bmm(left.flatten(0, 1), right.flatten(0, 1), out_dtype=torch.float32)
        return product.view(*left.shape[:3], -1)
    return (left @ right).float()


def unsupported_reason(model: Any) -> str | None:
    """Return why a model cannot share a prompt's cache, None where it can; found by a trial, once per model.

    The trial compares the logits after a short prompt with those of a ReplicatedCache.
    """
    if model not in _reasons:
        _reasons[model] = _find_reason(model)
    return _reasons[model] or None


@torch.no_grad()
def _find_reason(model: Any) -> str:
    if not all(type(layer) is PreallocatedLayer for layer in preallocated_cache(model.config).layers):
        return "some layers have windows"
    if not getattr(model, "_supports_attention_backend", False):
        return f"{type(model).__name__} computes its attention by itself, not through transformers' interface"
    embeddings = model.get_input_embeddings()
    device, vocabulary = embeddings.weight.device, embeddings.num_embeddings
    *prompt, first, second = (7919 * number % vocabulary for number in range(1, PROBE_LENGTH + 3))
    tokens = torch.tensor([first, second], device=device)
    logits = []
    try:
        for cache_class in (ReplicatedCache, SharedPrefixCache):
            state = prefill(model, [prompt], pad_id=0, device=device)
            cache = cache_class(model, state, len(tokens))
            with cache.attention():
                cache.next_logits(tokens)
                logits.append(cache.next_logits(tokens.flip(0)).float())
    except SharedCacheError as error:
        return str(error)
    except torch.OutOfMemoryError:  # of the batch around the trial, not of the model
        raise
    except Exception as error:  # of a model's own code or a GPU without float32 products of 16-bit numbers (bmm)
        return f"a trial failed with {type(error).__name__}: {error}"
    difference = float((logits[1] - logits[0]).norm() / logits[0].norm())
    if difference <= TOLERANCES.get(model.dtype, HALF_PRECISION_TOLERANCE):  # False for NaN
        return ""
    return f"in a trial its logits differ by {difference:.2g} of their size"
