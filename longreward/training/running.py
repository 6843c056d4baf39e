"""One run of a TRL trainer: from its last checkpoint where there is one, figures live, the model whole at its end.

Imports torch and TRL at its top, so import it only where a training starts.
"""

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import torch
from safetensors import SafetensorError
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from longreward.errors import PolicyError, StateError
from longreward.policy import Policy
from longreward.training.checkpoints import mark_complete, newest_complete, publish, step_of
from longreward.training.preflight import Lengths, TrainingData
from longreward.training.report import Log, TrainingReport
from longreward.training.settings import TrainingSettings


def run(trainer: Any, policy: Policy, lengths: Lengths, *, out: Path, state: Path, log: Log | None) -> TrainingReport:
    """Trains, writes the model with its tokenizer to `out`, and clears `state`, the folder of this one training."""
    started = time.monotonic()
    watcher = _Watcher(log)
    trainer.add_callback(watcher)
    trainer.remove_callback(PrinterCallback)
    if trainer.pop_callback(ProgressCallback):
        trainer.add_callback(_Bar)
    checkpoint = newest_complete(state)
    with _disk_and_memory(state):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    publish(out, lambda folder: _save(trainer, policy, folder))
    shutil.rmtree(state, ignore_errors=True)
    return TrainingReport(
        lengths=lengths,
        steps=trainer.state.global_step,
        resumed_from=step_of(checkpoint) if checkpoint else 0,
        seconds=time.monotonic() - started,
        last=watcher.last,
    )


def arguments(settings: TrainingSettings, policy: Policy, *, state: Path, max_length: int) -> dict[str, Any]:
    """The settings as TRL's trainers name them; what they would send or write anywhere is off."""
    check_trainable(policy)
    return {
        "output_dir": str(state),
        "learning_rate": settings.learning_rate,
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1,
        "per_device_train_batch_size": settings.micro_batch,
        "gradient_accumulation_steps": settings.batch_size // settings.micro_batch,
        "max_length": max_length,
        "lr_scheduler_type": settings.scheduler,
        "warmup_steps": settings.warmup,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "train_sampling_strategy": "group_by_length" if settings.group_by_length else "random",
        "gradient_checkpointing": settings.gradient_checkpointing,
        "bf16": settings.bf16,
        "seed": settings.seed,
        "save_strategy": "steps",
        "save_steps": settings.save_steps,
        "save_total_limit": 2,
        "logging_steps": settings.log_steps,
        "logging_nan_inf_filter": False,
        "use_cpu": policy.device.type == "cpu",
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": policy.device.type == "cuda",
        "remove_unused_columns": False,
        "disable_tqdm": not sys.stderr.isatty(),
        "report_to": "none",
        "push_to_hub": False,
    }


def dataset(data: TrainingData) -> datasets.Dataset:
    """The rows, read where they lie; nothing of a user's documents goes to a cache folder."""
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    return datasets.Dataset.from_list(data.rows) if isinstance(data.rows, list) else data.rows


def check_trainable(policy: Policy) -> None:
    """PolicyError where a device map left weights on the CPU or the disk, from where they are only lent to a GPU."""
    away = [name for name, weight in policy.model.named_parameters() if weight.is_meta]
    if away:
        raise PolicyError(
            f"policy.device_map found no room on the GPUs for {len(away)} weights, {away[0]} among them: such a model "
            "can answer, but cannot be trained; use more or larger GPUs, policy.dtype: bfloat16 with lora, or a "
            "smaller model"
        )


def _save(trainer: Any, policy: Policy, folder: Path) -> None:
    """Weights as any server loads them, in the type in which they were published; an adapter beside them."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(model, "merge_and_unload"):
        model.save_pretrained(folder / "adapter")
        model = model.merge_and_unload()
    model.config.use_cache = True
    model.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)


class _Watcher(TrainerCallback):  # type: ignore[misc]
    """Passes figures on as they come, and marks checkpoints that were written to their end."""

    def __init__(self, log: Log | None) -> None:
        self.log = log
        self.last: dict[str, float] = {}

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **more: Any) -> None:
        figures = {k: float(v) for k, v in (logs or {}).items() if isinstance(v, int | float)}
        if "loss" not in figures:  # the trainer's own summary at its end
            return
        self.last = figures
        if self.log is not None:
            self.log(state.global_step, figures)

    def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}")


class _Bar(ProgressCallback):  # type: ignore[misc]
    """The bar alone: figures go to whoever asked for them."""

    def on_log(self, *args: Any, **more: Any) -> None:
        pass


@contextmanager
def _disk_and_memory(state: Path) -> Iterator[None]:
    """Gives the two failures that a user can mend a name."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise PolicyError(
            f"the GPU's memory is full ({error}); lower micro_batch, switch gradient_checkpointing on, or set lora"
        ) from error
    except (OSError, SafetensorError, RuntimeError) as error:
        if not isinstance(error, OSError | SafetensorError) and not _is_of_files(error):
            raise
        raise StateError(
            f"{state}: a checkpoint cannot be written or read ({error}); free the space and run again: the training "
            "goes on from the last whole one"
        ) from error


def _is_of_files(error: RuntimeError) -> bool:
    """Whether torch speaks of the file that it writes: of a full disk it makes an error with no class of its own."""
    return any(word in str(error) for word in ("inline_container", "iostream error"))
