"""The trained model, whole, as any server loads it: put together from the parts of all processes, written by one."""

import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import datasets
from transformers import PrinterCallback

from longreward.errors import PolicyError, StateError
from longreward.models.policy import Policy, load_policy
from longreward.training.callbacks import MetricsCallback, StepProgress, handle_sigterm
from longreward.training.checkpoints import checkpoint_step, latest_checkpoint, publish_model
from longreward.training.config import TrainingSettings
from longreward.training.error_advice import actionable_error
from longreward.training.exact_resume import padding_shares
from longreward.training.report import Log, TrainingReport
from longreward.training.training_data import LengthStats, TrainingData
from longreward.utils.progress import show_progress


def save_model(trainer: Any, policy: Policy, out: Path) -> None:
    """Writes model and tokenizer to `out`; all processes call it together, and the first one writes.

    Weights are in the type in which they were trained; an adapter is merged, and kept in `out`/adapter. StateError
    where the disk refuses.
    """
    process = trainer.accelerator
    in_parts = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    weights = process.get_state_dict(trainer.model_wrapped) if in_parts else None
    if process.is_main_process:
        publish_model(out, lambda folder: _write(process.unwrap_model(trainer.model), weights, policy, folder))
    process.wait_for_everyone()


def remove_state(trainer: Any, state: Path) -> None:
    """Removes the state of a training that is done; where that is cut short, no half of it is found again."""
    if trainer.accelerator.is_main_process and state.is_dir():
        done = state.with_name(f".{state.name}.done")
        shutil.rmtree(done, ignore_errors=True)
        state.replace(done)
        shutil.rmtree(done, ignore_errors=True)


def _write(model: Any, weights: dict[str, Any] | None, policy: Policy, folder: Path) -> None:
    if hasattr(model, "merge_and_unload"):
        model.save_pretrained(folder / "adapter", state_dict=weights)
        model = model.merge_and_unload() if weights is None else _merged_anew(policy, folder / "adapter")
        weights = None
    model.config.use_cache = True
    model.save_pretrained(folder, state_dict=weights)
    policy.tokenizer.save_pretrained(folder)


def _merged_anew(policy: Policy, adapter: Path) -> Any:
    """What lies in parts on many GPUs cannot be merged there, so the bare model is read again, on the CPU."""
    from peft import PeftModel

    bare = load_policy(policy.config.model_copy(update={"device": "cpu"}), policy.name)
    return PeftModel.from_pretrained(bare.model, adapter).merge_and_unload()


# One run of a TRL trainer: from its last checkpoint where there is one, figures live, the model whole at its end.
#
# Imports torch and TRL at its top, so import it only where a training starts.


def run_trainer(
    trainer: Any, policy: Policy, lengths: LengthStats, *, title: str, out: Path, state: Path, log: Log | None
) -> TrainingReport:
    """Trains, writes the model with its tokenizer to `out`, and clears `state`, the folder of this one training.

    Progress appears under `title`. SIGTERM ends it after a checkpoint, as the process would have ended without one.
    """
    started = time.monotonic()
    checkpoint = latest_checkpoint(state, trainer.model)
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
    padded, ungrouped = padding_shares(trainer)
    save_model(trainer, policy, out)
    remove_state(trainer, state)
    return TrainingReport(
        lengths=lengths,
        steps=trainer.state.global_step,
        resumed_from=checkpoint_step(checkpoint) if checkpoint else 0,
        bf16=trainer.args.bf16,
        seconds=time.monotonic() - started,
        padding=padded,
        padding_ungrouped=ungrouped,
        last=watcher.last,
    )


def trainer_arguments(
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


def open_dataset(data: TrainingData) -> datasets.Dataset:
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
