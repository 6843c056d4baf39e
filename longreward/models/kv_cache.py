"""A key-value cache that grows in place: a token is written behind the last one, into room that was taken before.

Transformers' own layers are put together anew for each token, a copy of the whole cache: 60 % of the time of 64 short
answers of a tiny model on a CPU, and twice a layer's memory while it happens.
"""

from typing import Any

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

ROOM = 64
"""Tokens of room that are taken at once: one copy for so many tokens."""


class PreallocatedLayer(DynamicLayer):  # type: ignore[misc]  # transformers has no types
    """Keys and values [rows, heads, tokens, width] as views of tensors that hold more tokens."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._held: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds tokens; all keys and values so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        length = self.get_seq_length()
        end = length + key_states.shape[-2]
        if self._held is None or not self._in_place() or self._held[0].shape[-2] < end:
            self._held = self._with_room(self.keys, key_states, end), self._with_room(self.values, value_states, end)
        for held, states in zip(self._held, (key_states, value_states), strict=True):
            held[:, :, length:end] = states
        self.keys, self.values = (held[:, :, :end] for held in self._held)
        return self.keys, self.values

    def _in_place(self) -> bool:
        """Whether the keys are still a view of what is held: choosing or repeating rows puts others in their place."""
        assert self._held is not None
        return bool(self.keys.untyped_storage().data_ptr() == self._held[0].untyped_storage().data_ptr())

    @staticmethod
    def _with_room(known: torch.Tensor | None, states: torch.Tensor, end: int) -> torch.Tensor:
        rows, heads, _, width = states.shape
        held = states.new_empty(rows, heads, end + ROOM, width)
        if known is not None and known.numel():
            held[:, :, : known.shape[-2]] = known
        return held


def preallocated_cache(config: Any) -> DynamicCache:
    """An empty cache for a model of this config, its layers of plain full attention growing in place."""
    cache = DynamicCache(config=config)
    cache.layers = [PreallocatedLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
