"""TRL's trainers on rows that are token ids already, so that no other rendering or cutting takes place.

Imports torch and TRL at its top, so import it only where a training starts.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import AutocastKwargs
from datasets import Dataset
from transformers import set_seed
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from longreward.models.policy import Policy
from longreward.training.dropout import disable_dropout
from longreward.training.exact_resume import ExactResumeMixin
from longreward.training.prefix.sharing import PairCollator, share_prefix
from longreward.training.reference_logps import with_reference
from longreward.training.source_metrics import SIDE, capture_logps, figures_by_side, log_by_source


def sft_trainer(policy: Policy, rows: Dataset, peft_config: Any, arguments: dict[str, Any]) -> Any:
    """A trainer on rows of `input_ids` and `labels`; the loss is the mean over all answers' tokens of an update."""
    _drop_padding_mask(policy.model)
    with _quiet_about_names():
        config = _in_one_piece(SFTConfig(**arguments, dataset_kwargs={"skip_prepare_dataset": True}))
        return _SftTrainer(args=config, **_common(policy, rows, peft_config, config.seed))


def dpo_trainer(
    policy: Policy, rows: Dataset, peft_config: Any, arguments: dict[str, Any], *, kept: Path, share: bool
) -> Any:
    """A trainer on rows of `prompt_ids`, `chosen_ids`, `rejected_ids`; `kept` holds the reference for a later call.

    With `share`, the two answers of a pair share their prompt (prefix/sharing.py).
    """
    disable_dropout(policy.model)
    collator = None
    if share:
        share_prefix(policy.model)
        collator = PairCollator(policy.text.end_ids[0])  # padding is never looked at, so that any id does
    else:
        _drop_padding_mask(policy.model)
    with _quiet_about_names():
        config = _in_one_piece(DPOConfig(**arguments))
        common = _common(policy, rows, peft_config, config.seed)
        trainer = _DpoTrainer(kept, args=config, data_collator=collator, **common)
        log_by_source(trainer)
        return trainer


def _common(policy: Policy, rows: Dataset, peft_config: Any, seed: int) -> dict[str, Any]:
    set_seed(seed)  # a new adapter is drawn before the trainer seeds
    return {
        "model": policy.model,
        "train_dataset": rows,
        "processing_class": policy.tokenizer,
        "peft_config": peft_config,
    }


def _in_one_piece(config: Any) -> Any:
    """Keeps transformers from copying the model to every GPU that it sees, which would multiply the batch by them."""
    config._n_gpu = min(config.n_gpu, 1)
    return config


def _drop_padding_mask(model: Any) -> None:
    """Spares attention the mask of padding that stands behind each text, where no earlier token looks anyway.

    Without it attention is plainly causal: a third less work on a CPU, and on a GPU no mask of length x length.
    """

    def drop(module: Any, positional: Any, named: dict[str, Any]) -> Any:
        return positional, {**named, "attention_mask": None}

    model.base_model.register_forward_pre_hook(drop, with_kwargs=True)  # an adapter passes by the head


@contextmanager
def _quiet_about_names() -> Iterator[None]:
    """TRL itself still says gradient_checkpointing, so that its new name in transformers cannot be used yet."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing` is deprecated", category=FutureWarning)
        yield


class _SftTrainer(ExactResumeMixin, SFTTrainer):  # type: ignore[misc]
    def create_model_card(self, *args: Any, **more: Any) -> None:
        """TRL writes a card into each checkpoint; nobody reads it there."""


class _DpoTrainer(ExactResumeMixin, DPOTrainer):  # type: ignore[misc]
    """With the reference kept in a file; a model that is trained in parts gives it itself, before its first update.

    TRL would read a second model under FSDP, of no revision, for this alone, and hold it whole on every GPU.
    """

    def __init__(self, kept: Path, **more: Any) -> None:
        self._kept = kept
        if os.environ.get("ACCELERATE_USE_FSDP") == "true" and more["peft_config"] is None:
            more["ref_model"] = _StandIn(more["model"].config)
        super().__init__(**more)
        self.ref_model = None

    def create_model_card(self, *args: Any, **more: Any) -> None:
        """As above."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any) -> Dataset:
        return dataset

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        short = inputs.pop(SIDE, None)
        if short is None:
            return super()._compute_loss(model, inputs, return_outputs)
        with capture_logps(self.accelerator.unwrap_model(model)) as said:
            loss = super()._compute_loss(model, inputs, return_outputs)
        # the model is asked for the answers' tokens alone, or for whole texts of which the mask leaves the answers
        answers = inputs["completion_mask"][:, 1:]
        chosen, rejected = (said[0][:, -answers.shape[1] :] * answers).sum(dim=1).chunk(2)
        margins = self.beta * (chosen - inputs["ref_chosen_logps"] - rejected + inputs["ref_rejected_logps"])
        told = self.accelerator.gather(torch.stack([margins, short.to(margins)], dim=1)).tolist()
        for name, values in figures_by_side(*zip(*told, strict=True)).items():
            self._metrics["train" if self.model.training else "eval"][name] += values
        return loss

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Any]) -> Any:
        return super().compute_ref_log_probs(model, {k: v for k, v in inputs.items() if k != SIDE})

    @property
    def _in_parts(self) -> bool:
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        if self._in_parts:
            return dataset
        return with_reference(self, self.model, dataset, kept=self._kept, batch_size=batch_size, untrained=True)

    def _prepare_for_training(self, max_steps: int, loader: Any, checkpoint: Any) -> Any:
        model, loader = super()._prepare_for_training(max_steps, loader, checkpoint)
        if not self._in_parts:
            return model, loader
        size, untrained = self.args.precompute_ref_batch_size or 1, checkpoint is None
        with _as_it_is_trained(self.accelerator):
            self.train_dataset = with_reference(
                self, model, self.train_dataset, kept=self._kept, batch_size=size, untrained=untrained
            )
        return model, self.get_train_dataloader()


@contextmanager
def _as_it_is_trained(process: Any) -> Iterator[None]:
    """Without TRL's autocast around the reference: FSDP2 has types of its own for bfloat16, and rounds otherwise."""
    before, process.autocast_handler = process.autocast_handler, AutocastKwargs(enabled=False)
    try:
        yield
    finally:
        process.autocast_handler = before


class _StandIn(torch.nn.Module):
    """Takes the place of the reference model that TRL would read under FSDP; nobody asks it anything."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
