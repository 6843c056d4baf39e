"""One run of a TRL trainer: from its last checkpoint where there is one, figures live, the model whole at its end.

Imports torch and TRL at its top, so import it only where a training starts.
"""

import signal
import sys
import time
from pathlib import Path
from typing import Any

import datasets
from transformers import PrinterCallback

from longreward.errors import PolicyError, StateError
from longreward.models.policy import Policy
from longreward.training.callbacks import MetricsCallback, StepProgress, handle_sigterm
from longreward.training.checkpoints import resumable, step_of
from longreward.training.config import TrainingSettings
from longreward.training.error_advice import actionable_error
from longreward.training.exact_resume import padding_of
from longreward.training.report import Log, TrainingReport
from longreward.training.save import clear, save_whole
from longreward.training.training_data import Lengths, TrainingData
from longreward.utils.progress import show_progress


def run_trainer(
    trainer: Any, policy: Policy, lengths: Lengths, *, title: str, out: Path, state: Path, log: Log | None
) -> TrainingReport:
    """Trains, writes the model with its tokenizer to `out`, and clears `state`, the folder of this one training.

    Progress appears under `title`. SIGTERM ends it after a checkpoint, as the process would have ended without one.
    """
    started = time.monotonic()
    checkpoint = resumable(state, trainer.model)
    progress = show_progress(f"{title}, steps", enabled=trainer.is_world_process_zero())
    with handle_sigterm() as asked, actionable_error(state), progress as update:
        watcher = MetricsCallback(trainer, log, asked=asked, checkpoint=checkpoint)
        trainer.add_callback(watcher)
        trainer.add_callback(StepProgress(update))
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        trainer.check_weights()
    if asked.to_end:
        signal.raise_signal(signal.SIGTERM)
        raise StateError(f"{state}: ended by SIGTERM; run again, and the training goes on from its checkpoint")
    padded, ungrouped = padding_of(trainer)
    save_whole(trainer, policy, out)
    clear(trainer, state)
    return TrainingReport(
        lengths=lengths,
        steps=trainer.state.global_step,
        resumed_from=step_of(checkpoint) if checkpoint else 0,
        bf16=trainer.args.bf16,
        seconds=time.monotonic() - started,
        padding=padded,
        padding_ungrouped=ungrouped,
        last=watcher.last,
    )


def arguments(
    settings: TrainingSettings, policy: Policy, *, state: Path, max_length: int, bf16: bool
) -> dict[str, Any]:
    """The settings as TRL's trainers name them; what they would send or write anywhere is off."""
    return {
        "output_dir": str(state),
        "learning_rate": settings.learning_rate,
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1,
        "per_device_train_batch_size": settings.micro_batch,
        "gradient_accumulation_steps": settings.batch_size // (settings.micro_batch * (settings.processes or 1)),
        "max_length": max_length,
        "lr_scheduler_type": settings.scheduler,
        "warmup_steps": settings.warmup,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "train_sampling_strategy": "group_by_length" if settings.group_by_length else "random",
        "gradient_checkpointing": settings.gradient_checkpointing,
        "bf16": bf16,
        "ddp_find_unused_parameters": False,
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
        "disable_tqdm": True,  # StepProgress shows it
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
