"""Errors of a training that a user can fix: a full disk, too little memory, values that are not finite.

Imports torch at the top, so import it only where a training starts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from longreward.errors import LongRewardError, PolicyError, StateError

MEMORY_ADVICE = (
    "a lower micro_batch (and reference_batch), gradient_checkpointing, prefix_sharing: auto, lora, shorter texts "
    "(max_length refuses those that are longer), or launcher: accelerate with more GPUs need less"
)
OVERFLOW_AT_START = (
    "No weight had changed yet, so the model itself overflows on these texts: set policy.dtype to float32 and bf16 to "
    "false, and check whether the model answers them at all"
)
OVERFLOW_LATER = (
    "Lower learning_rate or max_grad_norm, raise warmup, or set policy.dtype to float32 and bf16 to false; with other "
    "settings the training starts from the beginning"
)


@contextmanager
def actionable_error(state: Path) -> Iterator[None]:
    """Convert torch's errors of disk and memory into ours, with advice; torch raises several types for each."""
    try:
        yield
    except LongRewardError:
        raise
    except torch.OutOfMemoryError as error:
        raise PolicyError(f"the GPU's memory is full ({_first_line(error)}); {MEMORY_ADVICE}") from error
    except MemoryError as error:
        raise PolicyError(f"this machine's memory is full ({error or 'MemoryError'}); {MEMORY_ADVICE}") from error
    except (OSError, SafetensorError, RuntimeError) as error:
        if _mentions(error, "DefaultCPUAllocator", "you tried to allocate", "Cannot allocate memory"):
            raise PolicyError(f"this machine's memory is full ({_first_line(error)}); {MEMORY_ADVICE}") from error
        # torch.save raises RuntimeError from its C++ writer where the disk is full
        if isinstance(error, RuntimeError) and not _mentions(error, "inline_container", "iostream error"):
            raise
        raise StateError(
            f"{state}: a checkpoint cannot be written or read ({error}); free the space and run again: the training "
            "resumes from the last complete one"
        ) from error


def not_finite_error(quantity: str, trainer: Any, ids: list[str]) -> PolicyError:
    """Return the error for a loss, gradient or weight that is NaN or infinite; `ids` are the rows that led to it."""
    args = trainer.args
    dtype = str(next(trainer.model.parameters()).dtype).removeprefix("torch.")
    rate = trainer.optimizer.param_groups[0]["lr"] if trainer.optimizer else args.learning_rate
    rows = f", with {', '.join(ids)}" if ids else ""
    advice = OVERFLOW_AT_START if trainer.state.global_step == 0 else OVERFLOW_LATER
    return PolicyError(
        f"{quantity} is not a finite number{rows} (learning rate {rate:.2g}, max_grad_norm {args.max_grad_norm:g}, "
        f"weights {dtype}, bf16: {str(args.bf16).lower()}). Nothing of it was saved, and earlier checkpoints are "
        f"intact. {advice}"
    )


def _mentions(error: BaseException, *phrases: str) -> bool:
    return any(phrase in str(error) for phrase in phrases)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0]
