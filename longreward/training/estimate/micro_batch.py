"""Measure micro batches before the first step of a training: the time that it will take and, on a GPU, its memory.

The longest micro batch and one of median length pass forward and backward on the device at hand; for the others, time
is interpolated by tokens. Measuring leaves no trace: gradients, random state and logged metrics are as before. The
longest micro batch also shows before the first step whether the memory suffices.

Imports torch at the top, so import it only where a training starts.
"""

import copy
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from longreward.utils.progress import format_duration

MIN_MICRO_BATCHES = 100  # below, three measured ones would cost more than 3 % of the training
MAX_SHARE = 0.02  # of a longer training
BUDGET_S = 2.0  # a pass that takes longer is measured once: the overhead of the first pass is small beside it
MAX_ROUNDS = 5  # of shorter passes, which are averaged since other processes may use the machine, too

log = logging.getLogger(__name__)


def log_time_estimate(trainer: Any, model: Any, count_tokens: Callable[[Sequence[int]], int]) -> float | None:
    """Measure, log and return the seconds of the remaining updates; None where measuring is not worth it.

    `count_tokens` returns the tokens as which rows pass the model together. All processes call it together.
    The optimizer's own time and that of checkpoints are not included.
    """
    steps = trainer.state.max_steps - trainer.state.global_step
    remaining: int = steps * trainer.args.gradient_accumulation_steps
    # Under DeepSpeed the backward pass owns the gradients, which could not be discarded.
    if remaining < MIN_MICRO_BATCHES or trainer.is_deepspeed_enabled:
        return None
    size = trainer.args.per_device_train_batch_size
    group = size * trainer.args.world_size
    order = trainer.sampler.epoch_order(0)
    batches = [order[start : start + group] for start in range(0, len(order), group)]
    # The processes compute at the same time, and the slowest one counts.
    starts = range(0, group, size)
    tokens = [max(count_tokens(batch[start : start + size]) for start in starts if batch[start:]) for batch in batches]
    by_tokens = sorted((i for i, batch in enumerate(batches) if len(batch) == group), key=tokens.__getitem__)
    if not by_tokens:
        return None
    longest, median = by_tokens[-1], by_tokens[len(by_tokens) // 2]
    with _without_trace(trainer, model):
        first_s = _micro_batch_seconds(trainer, model, batches[longest])
        if first_s > BUDGET_S:
            longest_s, median_s = first_s, _micro_batch_seconds(trainer, model, batches[median])
        else:  # the first pass was a warm-up
            affordable = min(MAX_SHARE * remaining - 1, BUDGET_S / first_s)
            rounds = max(1, min(MAX_ROUNDS, int(affordable / 2)))
            longest_s = median_s = 0.0
            for _ in range(rounds):
                longest_s += _micro_batch_seconds(trainer, model, batches[longest]) / rounds
                median_s += _micro_batch_seconds(trainer, model, batches[median]) / rounds
        if trainer.args.device.type == "cuda" and trainer.args.process_index == 0:
            peak = torch.cuda.max_memory_allocated(trainer.args.device)
            # AdamW's moments are allocated at the first update only.
            moments = 2 * sum(weight.nbytes for weight in trainer.model.parameters() if weight.requires_grad)
            log.info("peak memory: %.1f GB measured, and %.1f GB for the optimizer", peak / 1e9, moments / 1e9)
    seconds = np.interp(tokens, (0, tokens[median], tokens[longest]), (0.0, median_s, longest_s))
    total_s = remaining * float(seconds.mean())
    if trainer.args.process_index == 0:
        log.info(
            "%s steps of about %s: %s (measured: the longest micro batch %.2g s, a median one %.2g s)",
            f"{steps:,}",
            format_duration(total_s / steps),
            format_duration(total_s),
            longest_s,
            median_s,
        )
    return total_s


def _micro_batch_seconds(trainer: Any, model: Any, batch: Sequence[int]) -> float:
    """Return the time of the slowest process, so that all processes take the same decisions."""
    size = trainer.args.per_device_train_batch_size
    rows = batch[trainer.args.process_index * size :][:size]
    inputs = trainer.data_collator([trainer.train_dataset[row] for row in rows])
    _synchronize(trainer.args.device)
    started = time.perf_counter()
    trainer.pass_micro_batch(model, inputs)
    _synchronize(trainer.args.device)
    seconds = torch.tensor([time.perf_counter() - started], device=trainer.args.device, dtype=torch.float32)
    return float(trainer.accelerator.gather(seconds).max())


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _without_trace(trainer: Any, model: Any) -> Iterator[None]:
    metrics, token_count = copy.deepcopy(trainer._metrics), trainer._total_train_tokens
    sync = trainer.accelerator.gradient_state.sync_gradients
    try:
        with torch.random.fork_rng():
            yield
    finally:
        model.zero_grad(set_to_none=True)
        trainer._metrics, trainer._total_train_tokens = metrics, token_count
        trainer.accelerator.gradient_state._set_sync_gradients(sync)
