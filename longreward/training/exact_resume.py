"""A mixin for TRL's trainers with which a resumed training continues exactly as if it had not been interrupted.

    order of the data     depends on the seed and the epoch only (length_grouping.py), not on the state of a generator
    unlogged metrics      are saved with each checkpoint, so that the next logged means cover all their updates
    last update           is not followed by another one where only the model was still to be written
    NaN and infinity      stop the training before the update, so that no weight and no checkpoint contains one

Imports torch at the top, so import it only where a training starts.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from longreward.training.checkpoints import unmark
from longreward.training.error_advice import not_finite_error
from longreward.training.estimate.micro_batch import log_time_estimate
from longreward.training.length_grouping import RowSampler, build_sampler, padded_tokens, padding_share
from longreward.training.prefix.row_prefixes import RowPrefixes
from longreward.training.training_data import token_counts

MAX_LISTED = 8  # rows named in an error
PENDING_METRICS = "pending-metrics-{}.json"  # by process
COUNTERS = ("_globalstep_last_logged", "_total_loss_scalar", "_total_train_tokens")  # of transformers' Trainer


class ExactResumeMixin:
    """Must precede the trainer of transformers among the base classes."""

    args: Any
    state: Any
    model: Any
    control: Any
    train_dataset: Any
    sampler: RowSampler
    prefixes: RowPrefixes | None = None
    """What rows share, if a micro batch computes shared prefixes once."""
    _time_estimated = False
    _micro_batches = 0  # that passed the model in this epoch, in this process

    @property
    def is_sharded(self) -> bool:
        """Whether each process holds a part of the weights only."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)  # type: ignore[attr-defined]

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write no model card into checkpoints."""

    def _get_train_sampler(self, dataset: Any = None) -> RowSampler:
        self.sampler = build_sampler(
            [max(row) for row in text_lengths(self.train_dataset)],
            self.prefixes,
            grouped=self.args.train_sampling_strategy == "group_by_length",
            micro_batch=self.args.per_device_train_batch_size,
            processes=self.args.world_size,
            seed=self.args.seed,
        )
        return self.sampler

    def _run_epoch(self, **kwargs: Any) -> None:
        # transformers 5.23 would take one more step after a checkpoint of the last one.
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        epoch = self.sampler.epoch = kwargs["epoch"]
        resumes = kwargs["resume_from_checkpoint"] is not None and epoch == kwargs["epochs_trained"]
        self._micro_batches = kwargs["steps_trained_in_current_epoch"] if resumes else 0
        if not self._time_estimated:
            self._time_estimated = True
            log_time_estimate(self, kwargs["model"], self._count_tokens())
        super()._run_epoch(**kwargs)  # type: ignore[misc]

    def _count_tokens(self) -> Callable[[Sequence[int]], int]:
        """Return the function that counts the tokens, padding included, as which rows pass the model together."""
        if self.prefixes is not None:
            return self.prefixes.tokens
        lengths = text_lengths(self.train_dataset)
        return lambda rows: padded_tokens([lengths[row] for row in rows])

    def pass_micro_batch(self, model: Any, inputs: Any) -> None:
        """Run forward and backward as a training step does, without an update; the gradients stay in `model`."""
        self.current_gradient_accumulation_steps = 1
        super().training_step(model, inputs)  # type: ignore[misc]

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().training_step(*args, **kwargs)  # type: ignore[misc]
        if not torch.isfinite(loss).all():
            ids = self._row_ids(self._micro_batches, self._micro_batches + 1)
            raise not_finite_error(f"the loss of update {self.state.global_step + 1}", self, ids)
        self._micro_batches += 1
        return loss

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        norm = super()._get_grad_norm(*args, **kwargs)  # type: ignore[misc]
        if norm is not None and not torch.isfinite(torch.as_tensor(norm)).all():
            in_update = (self._micro_batches - 1) % self.args.gradient_accumulation_steps + 1
            ids = self._row_ids(self._micro_batches - in_update, self._micro_batches)
            raise not_finite_error(f"the gradient of update {self.state.global_step + 1}", self, ids)
        return norm

    def _row_ids(self, start: int, stop: int) -> list[str]:
        """Return the ids of the rows in these micro batches of the epoch, in this process."""
        if "id" not in self.train_dataset.column_names:
            return []
        size, order = self.args.per_device_train_batch_size, [*self.sampler]
        offsets = [(number * self.args.world_size + self.args.process_index) * size for number in range(start, stop)]
        rows = [row for offset in offsets for row in order[offset : offset + size]]
        ids = [str(self.train_dataset[row]["id"]) for row in rows[:MAX_LISTED]]
        if len(rows) > MAX_LISTED:
            ids.append(f"{len(rows) - MAX_LISTED} more")
        return ids

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        self.check_weights()
        # The folder may exist from a run that was killed while it wrote the same step.
        if self.args.should_save:
            unmark(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")
        super()._save_checkpoint(*args, **kwargs)  # type: ignore[misc]

    def check_weights(self) -> None:
        """PolicyError where a trained weight is not finite any more, as a large update in float16 makes it."""
        for name, weight in self.model.named_parameters():
            if not weight.requires_grad:
                continue
            local = weight.to_local() if hasattr(weight, "to_local") else weight
            if not torch.isfinite(local.detach()).all():
                raise not_finite_error(f"the weight {name} after update {self.state.global_step}", self, [])

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Warn of weights that a checkpoint lacks, but not of tied ones, which it holds under their other name.

        transformers 5.23 warns of each tied `lm_head.weight` on every resumed training: it leaves out only what a
        model class lists in `_keys_to_ignore_on_save`, which Llama and others no longer do.
        """
        weights = dict(self.model.named_parameters(remove_duplicate=False))
        missing = set(load_result.missing_keys)
        loaded = {id(weight) for name, weight in weights.items() if name not in missing}
        missing_keys = [name for name in load_result.missing_keys if id(weights.get(name)) not in loaded]
        super()._issue_warnings_after_load(load_result._replace(missing_keys=missing_keys))  # type: ignore[misc]

    def save_pending_metrics(self, checkpoint: Path) -> None:
        """Write the sums since metrics were last logged; each process writes its own."""
        pending = {name: getattr(self, name) for name in COUNTERS}
        pending["_tr_loss"] = self._tr_loss.item()  # type: ignore[attr-defined]
        pending["_metrics"] = dict(self._metrics["train"])  # type: ignore[attr-defined]
        file = checkpoint / PENDING_METRICS.format(self.args.process_index)
        file.write_text(json.dumps(pending, default=float), encoding="utf-8")

    def restore_pending_metrics(self, checkpoint: Path) -> None:
        """Read them back."""
        file = checkpoint / PENDING_METRICS.format(self.args.process_index)
        pending = json.loads(file.read_text(encoding="utf-8"))
        self._tr_loss.fill_(pending.pop("_tr_loss"))  # type: ignore[attr-defined]
        self._metrics["train"].update(pending.pop("_metrics"))  # type: ignore[attr-defined]
        for name, value in pending.items():
            setattr(self, name, value)


def reported_padding(trainer: Any) -> float:
    """Return the share of padding in the first epoch; a row of shared prefixes has none."""
    if trainer.prefixes is not None:
        return 0.0
    lengths = text_lengths(trainer.train_dataset)
    return padding_share(lengths, trainer.sampler.epoch_order(0), trainer.args.per_device_train_batch_size)


def text_lengths(rows: Any) -> list[tuple[int, ...]]:
    """Return the tokens of each row's texts: one for an example, two for a pair."""
    if "input_ids" in rows.column_names:
        return [(tokens,) for tokens in token_counts(rows, "input_ids")]
    if "prompt_ids" not in rows.column_names:  # of a reward model: two complete texts
        return list(zip(token_counts(rows, "chosen_ids"), token_counts(rows, "rejected_ids"), strict=True))
    columns = (token_counts(rows, name) for name in ("prompt_ids", "chosen_ids", "rejected_ids"))
    return [(prompt + chosen, prompt + rejected) for prompt, chosen, rejected in zip(*columns, strict=True)]
