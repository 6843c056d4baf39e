"""What fails under a training and a user can mend: a full disk, too little memory, a number that is none any more.

Imports torch at its top, so import it only where a training starts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from longreward.errors import LongRewardError, PolicyError, StateError

LESS_MEMORY = (
    "a lower micro_batch (and reference_batch), gradient_checkpointing, prefix_sharing: auto, lora, shorter texts "
    "(max_length refuses those that are longer), or launcher: accelerate with more GPUs need less"
)


@contextmanager
def actionable_error(state: Path) -> Iterator[None]:
    """Gives the failures of disk and memory, in whose words torch differs, one name and an advice."""
    try:
        yield
    except LongRewardError:
        raise
    except torch.OutOfMemoryError as error:
        raise PolicyError(f"the GPU's memory is full ({_first_line(error)}); {LESS_MEMORY}") from error
    except MemoryError as error:
        raise PolicyError(f"this machine's memory is full ({error or 'MemoryError'}); {LESS_MEMORY}") from error
    except (OSError, SafetensorError, RuntimeError) as error:
        if _says(error, "DefaultCPUAllocator", "you tried to allocate", "Cannot allocate memory"):
            raise PolicyError(f"this machine's memory is full ({_first_line(error)}); {LESS_MEMORY}") from error
        if isinstance(error, RuntimeError) and not _says(error, "inline_container", "iostream error"):
            raise
        raise StateError(
            f"{state}: a checkpoint cannot be written or read ({error}); free the space and run again: the training "
            "goes on from the last whole one"
        ) from error


def not_finite(what: str, trainer: Any, ids: list[str]) -> PolicyError:
    """The error of a loss, a gradient or a weight that is NaN or infinite; `ids` are the rows that led to it."""
    args = trainer.args
    dtype = next(trainer.model.parameters()).dtype
    rate = trainer.optimizer.param_groups[0]["lr"] if trainer.optimizer else args.learning_rate
    of = f", with {', '.join(ids)}" if ids else ""
    numbers = f"weights {str(dtype).removeprefix('torch.')}, bf16: {str(args.bf16).lower()}"
    return PolicyError(
        f"{what} is not a finite number{of} (learning rate {rate:.2g}, max_grad_norm "
        f"{args.max_grad_norm:g}, {numbers}). Nothing of it was kept, and earlier checkpoints are sound. "
        + (EARLY if trainer.state.global_step == 0 else LATE)
    )


EARLY = (
    "No weight had changed yet, so the model itself overflows on these texts: set policy.dtype to float32 and bf16 to "
    "false, and look whether the model answers them at all"
)
LATE = (
    "Lower learning_rate or max_grad_norm, raise warmup, or set policy.dtype to float32 and bf16 to false; with other "
    "settings the training starts anew"
)


def _says(error: BaseException, *words: str) -> bool:
    return any(word in str(error) for word in words)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0]
