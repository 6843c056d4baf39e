"""KV caches for sampling n responses to a prompt that is read once.

    prompt ids --prefill--> KV cache --replicated, or shared (shared_cache.py)--> next-token logits of n responses

`ReplicatedCache` copies the prompt's cache for each response, which works with every model whose cache holds keys and
values only. Responses that have ended leave the batch.
"""

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

GROWTH_TOKENS = 64
"""Tokens that a layer reserves at once; the cache is copied once per so many tokens."""

REPEATABLE_LAYERS = {"PreallocatedLayer", "DynamicSlidingWindowLayer", "DynamicIndexedLayer", "DummyLayer"}
"""Layer classes whose content is keys and values only; other classes may hold a state that cannot be repeated."""


class PreallocatedLayer(DynamicLayer):  # type: ignore[misc]  # transformers has no types
    """Keys and values [batch, heads, tokens, head size] as views of larger tensors, to which tokens are added in place.

    transformers' own layer concatenates tensors at each token, which copies the whole cache. This took 60 % of the time
    of 64 short responses of a tiny model on a CPU, and needs twice a layer's memory while it happens.
    """

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add tokens and return all keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        length = self.get_seq_length()
        end = length + key_states.shape[-2]
        if self._buffers is None or not self._is_view() or self._buffers[0].shape[-2] < end:
            self._buffers = self._allocate(self.keys, key_states, end), self._allocate(self.values, value_states, end)
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[:, :, length:end] = states
        self.keys, self.values = (buffer[:, :, :end] for buffer in self._buffers)
        return self.keys, self.values

    def _is_view(self) -> bool:
        # Selecting or repeating rows (methods of the base class) replaces the keys by new tensors.
        assert self._buffers is not None
        return bool(self.keys.untyped_storage().data_ptr() == self._buffers[0].untyped_storage().data_ptr())

    @staticmethod
    def _allocate(current: torch.Tensor | None, states: torch.Tensor, end: int) -> torch.Tensor:
        rows, heads, _, size = states.shape
        buffer = states.new_empty(rows, heads, end + GROWTH_TOKENS, size)
        if current is not None and current.numel():
            buffer[:, :, : current.shape[-2]] = current
        return buffer


def preallocated_cache(config: Any) -> DynamicCache:
    """Return an empty cache for a model config, with a PreallocatedLayer for each layer of full attention."""
    cache = DynamicCache(config=config)
    cache.layers = [PreallocatedLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def cache_keyword(model: Any) -> str:
    """Return the argument of a model's `forward` that takes its cache: transformers 5.24 renamed it to `cache`."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def can_repeat_cache(model: Any) -> bool:
    """Return whether a model's cache holds nothing but keys and values, so that it can be repeated for n responses."""
    if getattr(model, "_is_stateful", False):
        return False
    return all(type(layer).__name__ in REPEATABLE_LAYERS for layer in preallocated_cache(model.config).layers)


def cache_bytes(cache: DynamicCache) -> int:
    """Return the size of a filled cache in bytes."""
    return sum(getattr(layer, name).nbytes for layer in cache.layers for name in ("keys", "values"))


@dataclass(frozen=True)
class PrefillState:
    """The state of a model after reading a batch of prompts, padded on the left."""

    cache: DynamicCache
    present: torch.Tensor  # [prompts, longest prompt], False where padded
    logits: torch.Tensor  # [prompts, vocabulary], of the first token of each response


def prefill(model: Any, prompts: Sequence[Sequence[int]], *, pad_id: int, device: torch.device) -> PrefillState:
    """Read the prompts in one forward pass; `pad_id` may be any id because padding is masked."""
    longest = max(len(ids) for ids in prompts)
    input_ids = torch.tensor([[pad_id] * (longest - len(ids)) + [*ids] for ids in prompts], device=device)
    lengths = torch.tensor([len(ids) for ids in prompts], device=device)
    present = torch.arange(longest, device=device) >= longest - lengths[:, None]
    cache = preallocated_cache(model.config)
    output = model(
        input_ids=input_ids,
        attention_mask=None if bool(present.all()) else present.long(),
        position_ids=(present.long().cumsum(dim=1) - 1).clamp(min=0),
        logits_to_keep=1,
        **{cache_keyword(model): cache},
    )
    return PrefillState(cache, present, output.logits[:, -1])


class ReplicatedCache:
    """The prompt's cache copied for each response; each response is a row of the batch."""

    def __init__(self, model: Any, state: PrefillState, n: int) -> None:
        self.model, self.cache = model, state.cache
        self._cache_kwargs = {cache_keyword(model): self.cache}
        if n > 1:
            self.cache.batch_repeat_interleave(n)
        self.present = state.present.long().repeat_interleave(n, dim=0)

    def attention(self) -> AbstractContextManager[None]:
        """Return a context in which nothing changes: the model's own attention reads this cache."""
        return nullcontext()

    def next_logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """Add the newest tokens [responses] and return the logits that follow [responses, vocabulary]."""
        self.present = torch.cat([self.present, torch.ones_like(self.present[:, :1])], dim=1)
        output = self.model(
            input_ids=tokens[:, None],
            attention_mask=self.present,
            position_ids=self.present.sum(dim=1, keepdim=True) - 1,
            **self._cache_kwargs,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def select_rows(self, rows: torch.Tensor) -> bool:
        """Keep only these responses; return False, without any change, if a layer does not support that."""
        if not all(type(layer) in (PreallocatedLayer, DynamicSlidingWindowLayer) for layer in self.cache.layers):
            return False
        self.cache.batch_select_indices(rows)
        self.present = self.present[rows]
        return True
