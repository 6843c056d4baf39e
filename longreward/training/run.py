"""Prepare a training, run its TRL trainer from the last checkpoint, and save the trained model.

Imports torch and TRL at the top, so import it only where a training starts.
"""

import logging
import math
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PrinterCallback

from longreward.errors import PolicyError, StateError
from longreward.models.config import PolicyConfig
from longreward.models.policy import Policy, load_policy
from longreward.training.callbacks import MetricsCallback, StepProgress, handle_sigterm
from longreward.training.checkpoints import checkpoint_step, latest_checkpoint, publish_model, training_key
from longreward.training.config import OptimizationSettings, TrainingSettings
from longreward.training.distributed import is_main_process
from longreward.training.error_advice import actionable_error
from longreward.training.estimate.memory import check_fits
from longreward.training.estimate.training_estimate import estimate_training
from longreward.training.exact_resume import reported_padding
from longreward.training.lora import build_lora_config
from longreward.training.pair_encoding import TokenMismatch
from longreward.training.precision import resolve_bf16
from longreward.training.prefix.row_prefixes import RowPrefixes
from longreward.training.prefix.support import shares_prefixes
from longreward.training.report import Log, TrainingReport
from longreward.training.training_data import TrainingData
from longreward.utils.progress import show_progress

log = logging.getLogger(__name__)

SHORT_TRAINING = 10
"""Up to this many updates, one with a learning rate of 0 is a tenth of the training or more."""


@dataclass(frozen=True)
class TrainingSetup:
    """What a trainer is built from."""

    policy: Policy
    data: TrainingData
    lora: Any
    """PEFT's config; None: all weights are trained."""
    arguments: dict[str, Any]
    """The arguments that SFTConfig and DPOConfig share."""
    state: Path
    """The folder of this training alone, for rows, checkpoints and choices that a resumed training keeps."""
    prefixes: RowPrefixes | None = None
    """What the rows share, if a micro batch computes it once."""


def prepare_training(
    settings: TrainingSettings,
    policy_config: PolicyConfig,
    *,
    model: str,
    data: Path,
    state: Path,
    token_mismatch: TokenMismatch | None = None,
) -> TrainingSetup:
    """Tokenize the data, then load the model; with `token_mismatch` the data holds pairs, without it examples.

    PolicyError or DataError where the data, the model or this machine does not suit the training.
    """
    settings_json = settings.model_dump_json() + policy_config.model_dump_json()
    state = state / training_key(settings_json, model=model, data=data)
    estimate = estimate_training(
        settings, policy_config, model=model, data=data, rows_dir=state / "rows", token_mismatch=token_mismatch
    )
    if is_main_process():
        for line in estimate.data_lines():
            log.info("%s", line)
    check_fits(estimate.shape, estimate.memory, estimate.device)
    policy = load_policy(policy_config, model, training=settings.lora is None)
    section = "sft" if token_mismatch is None else "train"
    longest, prefixes = estimate.data.stats.longest, estimate.prefixes
    if prefixes and not shares_prefixes(settings.prefix_sharing, policy.model, longest=longest, section=section):
        prefixes = None
    lora = build_lora_config(settings.lora, policy.model)
    check_trainable(policy)
    bf16 = resolve_bf16(
        settings.bf16,
        policy,
        state=state,
        rows=max(1, round(estimate.micro_batch_tokens / longest)),
        tokens=longest,
        full=settings.lora is None,
    )
    arguments = trainer_arguments(
        settings,
        policy,
        state=state,
        max_length=estimate.data.stats.limit,
        bf16=bf16,
        processes=settings.processes or 1,
    )
    arguments["warmup_steps"] = count_warmup_updates(settings.warmup, estimate.steps)
    if is_main_process():
        _warn_about_warmup(settings, section=section, updates=arguments["warmup_steps"], steps=estimate.steps)
    return TrainingSetup(policy, estimate.data, lora, arguments, state, prefixes)


def trainer_arguments(
    settings: OptimizationSettings,
    policy: Policy,
    *,
    state: Path,
    max_length: int | None,
    bf16: bool,
    processes: int = 1,
) -> dict[str, Any]:
    """Return the settings under TRL's names, with everything switched off that would report or upload."""
    return {
        "output_dir": str(state),
        "learning_rate": settings.learning_rate,
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps or -1,
        "per_device_train_batch_size": settings.micro_batch,
        "gradient_accumulation_steps": settings.batch_size // (settings.micro_batch * processes),
        "max_length": max_length,
        "lr_scheduler_type": settings.scheduler,
        "warmup_steps": settings.warmup,  # a share of the steps, until `prepare_training` knows their number
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "train_sampling_strategy": "group_by_length" if settings.group_by_length else "random",
        "gradient_checkpointing": settings.gradient_checkpointing,
        "bf16": bf16,
        "ddp_find_unused_parameters": False,  # every weight takes part in each step; searching costs time
        "seed": settings.seed,
        "save_strategy": "steps",
        "save_steps": settings.save_steps,
        "save_total_limit": 2,  # a kill may leave the newest one partial
        "logging_steps": settings.log_steps,
        "logging_nan_inf_filter": False,  # transformers would log the window's mean instead of NaN
        "use_cpu": policy.device.type == "cpu",
        "dataloader_num_workers": 0,  # rows are token ids already, so there is nothing to parallelize
        "dataloader_pin_memory": policy.device.type == "cuda",
        "remove_unused_columns": False,  # the collators read columns that the model does not know
        "disable_tqdm": True,  # StepProgress shows it
        "report_to": "none",
        "push_to_hub": False,
    }


def count_warmup_updates(warmup: float, steps: int) -> int:
    """Return the updates of the warm-up; a share (`warmup` below 1) of less than one update is none.

    transformers rounds up, so that the default of 0.03 would spend the only update of a short training on the warm-up,
    whose first update has a learning rate of 0.
    """
    if warmup >= 1:
        return int(warmup)
    return 0 if warmup * steps < 1 else math.ceil(warmup * steps)


def _warn_about_warmup(settings: TrainingSettings, *, section: str, updates: int, steps: int) -> None:
    if settings.scheduler == "constant" or updates == 0:
        return
    if updates >= steps:
        effect = "the learning rate never reaches its peak, and the first update has 0 and changes nothing"
    elif steps <= SHORT_TRAINING:
        effect = "the first update has a learning rate of 0 and changes nothing"
    else:
        return
    log.warning(
        "%s.warmup (%g) warms up over %d of %d updates: %s; lower it, or set it to 0",
        section,
        settings.warmup,
        updates,
        steps,
        effect,
    )


def check_trainable(policy: Policy) -> None:
    """PolicyError where a device map offloaded weights to the CPU or disk, from where a GPU only borrows them."""
    offloaded = [name for name, weight in policy.model.named_parameters() if weight.is_meta]
    if offloaded:
        raise PolicyError(
            f"policy.device_map found no room on the GPUs for {len(offloaded)} weights, {offloaded[0]} among them: "
            "such a model can answer, but cannot be trained; use more or larger GPUs, policy.dtype: bfloat16 with "
            "lora, or a smaller model"
        )


def run_trainer(trainer: Any, setup: TrainingSetup, *, title: str, out: Path, log: Log | None) -> TrainingReport:
    """Train, write the model with its tokenizer to `out`, and delete the state folder.

    Progress appears under `title`. SIGTERM ends the training after a checkpoint, and then the process as it would have
    ended without one.
    """
    started = time.monotonic()
    checkpoint = latest_checkpoint(setup.state, trainer.model)
    progress = show_progress(f"{title}, steps", enabled=trainer.is_world_process_zero())
    with handle_sigterm() as stop, actionable_error(setup.state), progress as update:
        metrics = MetricsCallback(trainer, log, stop=stop, checkpoint=checkpoint)
        trainer.add_callback(metrics)
        trainer.add_callback(StepProgress(update))
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        trainer.check_weights()
    if stop.requested:
        signal.raise_signal(signal.SIGTERM)  # to the previous handler, by default the end of the process
        raise StateError(f"{setup.state}: ended by SIGTERM; run again, and the training resumes from its checkpoint")
    padding = reported_padding(trainer)
    save_model(trainer, setup.policy, out)
    remove_state(trainer, setup.state)
    return TrainingReport(
        lengths=setup.data.stats,
        steps=trainer.state.global_step,
        resumed_from=checkpoint_step(checkpoint) if checkpoint else 0,
        bf16=trainer.args.bf16,
        seconds=time.monotonic() - started,
        padding=padding,
        last=metrics.last,
    )


def save_model(trainer: Any, policy: Policy, out: Path) -> None:
    """Write model and tokenizer to `out`. All processes call it together; the main one writes.

    Weights keep the dtype in which they were trained. An adapter is merged, and also saved in `out`/adapter.
    StateError where the disk refuses.
    """
    accelerator = trainer.accelerator
    weights = accelerator.get_state_dict(trainer.model_wrapped) if trainer.is_sharded else None
    if accelerator.is_main_process:
        model = accelerator.unwrap_model(trainer.model)
        publish_model(out, lambda folder: _write_model(model, weights, policy, folder))
    accelerator.wait_for_everyone()


def _write_model(model: Any, weights: dict[str, Any] | None, policy: Policy, folder: Path) -> None:
    if hasattr(model, "merge_and_unload"):
        model.save_pretrained(folder / "adapter", state_dict=weights)
        if weights is not None:  # sharded weights cannot be merged, so the base model is loaded again
            from peft import PeftModel

            base = load_policy(policy.config.model_copy(update={"device": "cpu"}), policy.name)
            model, weights = PeftModel.from_pretrained(base.model, folder / "adapter"), None
        model = model.merge_and_unload()
    # Gradient checkpointing switched the cache off, which would make generation quadratic.
    model.config.use_cache = True
    model.save_pretrained(folder, state_dict=weights)
    policy.tokenizer.save_pretrained(folder)


def remove_state(trainer: Any, state: Path) -> None:
    """Delete the state of a finished training; renamed first, so that no partial state is ever resumed from."""
    if trainer.accelerator.is_main_process and state.is_dir():
        finished = state.with_name(f".{state.name}.done")
        shutil.rmtree(finished, ignore_errors=True)
        state.replace(finished)
        shutil.rmtree(finished, ignore_errors=True)
