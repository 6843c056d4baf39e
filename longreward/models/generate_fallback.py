"""Sampling by transformers' `generate`, for models whose answers cannot branch off one prompt cache.

Hybrid and recurrent models (LFM2, RecurrentGemma, Qwen3-Next, Mamba, Jamba) keep a state besides or instead of keys
and values. transformers 5.23 cannot repeat such a state for several answers, and some models keep it within themselves.
So each answer reads the prompt by itself, which costs n times the prompt.

Tokens come from the same random streams as elsewhere (decoding.py): an answer depends on the seed, its prompt and its
number, not on n or on the batch, but for rounding, since the rows of a batch are added up in another order.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

CACHED_LAYERS = {"GrowingLayer", "DynamicSlidingWindowLayer", "DynamicIndexedLayer", "DummyLayer"}
"""Classes of cache layers that can repeat what they hold; a class that is not known here is not trusted to."""

log = logging.getLogger(__name__)
_warned: set[str] = set()


def needs_generate(model: Any) -> bool:
    """Whether a model keeps more than keys and values; warns once for each class of models."""
    from longreward.models.kv_cache import preallocated_cache  # imports torch, which every command would wait for

    stateful = bool(getattr(model, "_is_stateful", False))
    if not stateful and all(type(layer).__name__ in CACHED_LAYERS for layer in preallocated_cache(model.config).layers):
        return False
    name = type(model).__name__
    if name not in _warned:
        _warned.add(name)
        log.warning(
            "%s keeps a state besides keys and values: its responses are sampled by transformers' generate, and each "
            "of them reads its whole prompt",
            name,
        )
    return True


def generate_answers(
    model: Any,
    prompt: Sequence[int],
    draws: "torch.Tensor",
    choose: "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]",
    *,
    end_ids: Sequence[int],
    limit: int,
    stopped: Callable[[], bool],
) -> list[list[int]]:
    """The ids of one answer for each row of `draws` [answers, tokens], each with its end token where it came.

    `choose(logits, draws)` takes [answers, vocabulary] and one column of `draws`, and gives a token for each answer.
    """
    import torch
    from transformers import LogitsProcessorList, StoppingCriteriaList

    start = len(prompt)

    def force(input_ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        """Leaves only the chosen token possible, so that generate's greedy search takes it."""
        tokens = choose(scores, draws[:, input_ids.shape[1] - start])
        return torch.full_like(scores, -torch.inf).scatter(1, tokens[:, None], 0.0)

    def stop(input_ids: "torch.Tensor", scores: "torch.Tensor", **kwargs: Any) -> "torch.Tensor":
        return torch.full((len(input_ids),), stopped(), device=input_ids.device)

    rows = torch.tensor([list(prompt)] * len(draws), device=draws.device)
    with _plain_generation(model):
        found = model.generate(
            rows,
            attention_mask=torch.ones_like(rows),
            do_sample=False,
            max_new_tokens=min(limit, draws.shape[1]),
            eos_token_id=list(end_ids),
            pad_token_id=end_ids[0],
            logits_processor=LogitsProcessorList([force]),
            stopping_criteria=StoppingCriteriaList([stop]),
        )
    return [_up_to_end(row, end_ids) for row in found[:, start:].tolist()]


def _up_to_end(ids: list[int], end_ids: Sequence[int]) -> list[int]:
    """Without the padding behind an answer that ended before others."""
    end = next((at for at, token in enumerate(ids) if token in end_ids), len(ids) - 1)
    return ids[: end + 1]


@contextmanager
def _plain_generation(model: Any) -> Iterator[None]:
    """Keeps the model's own generation config (penalties, least lengths) out, which sampling elsewhere ignores too."""
    from transformers import GenerationConfig

    before, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = before
