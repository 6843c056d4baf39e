"""How long a training will take, from micro batches of its own that are measured before its first step.

The longest micro batch and a middle one pass forward and backward on the device at hand; between and below them, time
is taken to grow evenly with tokens. What is measured leaves no trace: gradients, random state and logged figures are as
before. The longest one also shows before the first step whether its memory suffices.

Imports torch at its top, so import it only where a training starts.
"""

import copy
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from longreward.utils.progress import format_duration

LEAST_MICRO_BATCHES = 30  # below, measuring would cost more than a tenth of the training
BUDGET_S = 2.0  # a pass that takes longer is measured once: what is slow about the first is small beside it
ROUNDS = 5  # of shorter ones, whose mean sees more than one moment of a machine that others use, too

log = logging.getLogger(__name__)


def log_time_estimate(trainer: Any, model: Any, texts: Sequence[tuple[int, ...]]) -> float | None:
    """Measures, logs and returns the seconds that the updates to come will take; None where it is not worth measuring.

    `texts` holds the tokens of the texts that each row passes the model as. All processes call it together. The
    optimiser's own time and that of checkpoints are not included.
    """
    steps = trainer.state.max_steps - trainer.state.global_step
    remaining: int = steps * trainer.args.gradient_accumulation_steps
    if remaining < LEAST_MICRO_BATCHES or trainer.is_deepspeed_enabled:  # whose backward pass keeps gradients itself
        return None
    group = trainer.args.per_device_train_batch_size * trainer.args.world_size
    order = trainer.order.of(0)
    batches = [order[at : at + group] for at in range(0, len(order), group)]
    tokens = [_padded_tokens(batch, texts) for batch in batches]
    whole = [number for number, batch in enumerate(batches) if len(batch) == group]
    if not whole:
        return None
    by_tokens = sorted(whole, key=tokens.__getitem__)
    longest, middle = by_tokens[-1], by_tokens[len(by_tokens) // 2]
    with _without_trace(trainer, model):
        first_s = _micro_batch_seconds(trainer, model, batches[longest])
        rounds = min(ROUNDS, remaining // LEAST_MICRO_BATCHES)
        measured: list[tuple[float, float]] = []
        while len(measured) < rounds and (not measured or sum(map(sum, measured)) < BUDGET_S):
            again = first_s < BUDGET_S
            of_longest = _micro_batch_seconds(trainer, model, batches[longest]) if again else first_s
            measured.append((of_longest, _micro_batch_seconds(trainer, model, batches[middle])))
    longest_s, middle_s = (sum(passes) / len(measured) for passes in zip(*measured, strict=True))
    each = mean_seconds(tokens, (tokens[longest], longest_s), (tokens[middle], middle_s))
    seconds = remaining * each
    if trainer.args.process_index > 0:
        return seconds
    log.info(
        "%s steps of about %s: %s (measured: the longest micro batch %.2g s, a middle one %.2g s)",
        f"{steps:,}",
        format_duration(seconds / steps),
        format_duration(seconds),
        longest_s,
        middle_s,
    )
    return seconds


def mean_seconds(tokens: Sequence[int], longest: tuple[int, float], middle: tuple[int, float]) -> float:
    """Seconds of a micro batch on average; `longest` and `middle` are (tokens, seconds) of measured ones.

    >>> mean_seconds([100, 300, 500], longest=(500, 9.0), middle=(300, 5.0))  # 1, 5 and 9 s
    5.0
    """
    (most, longest_s), (some, middle_s) = longest, middle
    if most > some and longest_s > middle_s:
        slope = (longest_s - middle_s) / (most - some)
        # attention grows with the square, so that a line through both may fall below zero for short ones
        floor = middle_s / some
        each = [max(middle_s + slope * (count - some), floor * count * 0.5) for count in tokens]
    else:  # of one length, or on a device that a middle one does not fill
        each = [longest_s] * len(tokens)
    return sum(each) / len(each)


def _padded_tokens(batch: Sequence[int], texts: Sequence[tuple[int, ...]]) -> int:
    lengths = [length for row in batch for length in texts[row]]
    return max(lengths) * len(lengths)


def _micro_batch_seconds(trainer: Any, model: Any, batch: Sequence[int]) -> float:
    """Of the slowest process, so that all processes hear the same and measure equally often."""
    size = trainer.args.per_device_train_batch_size
    own = batch[trainer.args.process_index * size :][:size]
    inputs = trainer.data_collator([trainer.train_dataset[row] for row in own])
    _wait_for_device(trainer.args.device)
    started = time.perf_counter()
    trainer.pass_micro_batch(model, inputs)
    _wait_for_device(trainer.args.device)
    spent = torch.tensor([time.perf_counter() - started], device=trainer.args.device, dtype=torch.float32)
    return float(trainer.accelerator.gather(spent).max())


def _wait_for_device(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _without_trace(trainer: Any, model: Any) -> Iterator[None]:
    metrics, counted = copy.deepcopy(trainer._metrics), trainer._total_train_tokens
    sync = trainer.accelerator.gradient_state.sync_gradients
    try:
        with torch.random.fork_rng():
            yield
    finally:
        model.zero_grad(set_to_none=True)
        trainer._metrics, trainer._total_train_tokens = metrics, counted
        trainer.accelerator.gradient_state._set_sync_gradients(sync)
