"""What a trainer needs beyond TRL's, so that a training that was ended goes on as if it had not been.

    the order of the data     from the seed and the epoch alone (order.py), not from how often chance was asked before
    figures since the last    kept with each checkpoint, so that the next logged means are over all their updates
    the last update           is not followed by another where only the model was still to be written
    NaN and infinity          stop it before the update, so that no weight and no checkpoint holds one

Imports torch at its top, so import it only where a training starts.
"""

import json
from pathlib import Path
from typing import Any

import torch

from longreward.training.checkpoints import unmark
from longreward.training.error_advice import not_finite
from longreward.training.estimate.micro_batch import log_time_estimate
from longreward.training.length_grouping import LengthGroupedSampler, padding
from longreward.training.prefix.sharing import PACKED_PAIRS

SHOWN = 8


def padding_shares(trainer: Any) -> tuple[float, float]:
    """The share of padding in the first epoch, and what it would be with rows in random order."""
    texts, micro_batch = _texts(trainer), trainer.args.per_device_train_batch_size
    ungrouped = LengthGroupedSampler(trainer.order.lengths, group=1, seed=trainer.args.seed)
    return padding(texts, trainer.order.of(0), micro_batch), padding(texts, ungrouped.of(0), micro_batch)


class ExactResumeMixin:
    """Comes before a trainer of transformers among the bases of a class."""

    args: Any
    state: Any
    model: Any
    control: Any
    train_dataset: Any
    order: LengthGroupedSampler
    _time_estimated = False
    _passed = 0  # micro batches of this epoch that passed the model, in this process

    def _get_train_sampler(self, dataset: Any = None) -> LengthGroupedSampler:
        grouped = self.args.train_sampling_strategy == "group_by_length"
        group = self.args.per_device_train_batch_size * self.args.world_size if grouped else 1
        self.order = LengthGroupedSampler([max(row) for row in _texts(self)], group=group, seed=self.args.seed)
        return self.order

    def _run_epoch(self, **named: Any) -> None:
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        epoch = self.order.epoch = named["epoch"]
        goes_on = named["resume_from_checkpoint"] is not None and epoch == named["epochs_trained"]
        self._passed = named["steps_trained_in_current_epoch"] if goes_on else 0
        if not self._time_estimated:
            self._time_estimated = True
            log_time_estimate(self, named["model"], _texts(self))
        super()._run_epoch(**named)  # type: ignore[misc]

    def pass_micro_batch(self, model: Any, inputs: Any) -> None:
        """Forward and backward as in a step, and no more; gradients stay in `model`."""
        self.current_gradient_accumulation_steps = 1
        super().training_step(model, inputs)  # type: ignore[misc]

    def training_step(self, *args: Any, **named: Any) -> Any:
        loss = super().training_step(*args, **named)  # type: ignore[misc]
        if not torch.isfinite(loss).all():
            ids = self._ids(self._passed, self._passed + 1)
            raise not_finite(f"the loss of update {self.state.global_step + 1}", self, ids)
        self._passed += 1
        return loss

    def _get_grad_norm(self, *args: Any, **named: Any) -> Any:
        norm = super()._get_grad_norm(*args, **named)  # type: ignore[misc]
        if norm is not None and not torch.isfinite(torch.as_tensor(norm)).all():
            in_update = (self._passed - 1) % self.args.gradient_accumulation_steps + 1
            ids = self._ids(self._passed - in_update, self._passed)
            raise not_finite(f"the gradient of update {self.state.global_step + 1}", self, ids)
        return norm

    def _save_checkpoint(self, *args: Any, **named: Any) -> None:
        self.check_weights()
        if self.args.should_save:
            unmark(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")
        super()._save_checkpoint(*args, **named)  # type: ignore[misc]

    def check_weights(self) -> None:
        """PolicyError where a trained weight is no finite number any more, as float16 makes it of a large update."""
        for name, weight in self.model.named_parameters():
            if not weight.requires_grad:
                continue
            here = weight.to_local() if hasattr(weight, "to_local") else weight
            if not torch.isfinite(here.detach()).all():
                raise not_finite(f"the weight {name} after update {self.state.global_step}", self, [])

    def _ids(self, first: int, end: int) -> list[str]:
        """Of the rows in these micro batches of the epoch, in this process."""
        size, order = self.args.per_device_train_batch_size, [*self.order]
        starts = [(micro * self.args.world_size + self.args.process_index) * size for micro in range(first, end)]
        rows = [row for start in starts for row in order[start : start + size]]
        if "id" not in self.train_dataset.column_names:
            return []
        more = [f"{len(rows) - SHOWN} more"] if len(rows) > SHOWN else []
        return [str(self.train_dataset[row]["id"]) for row in rows[:SHOWN]] + more

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Warns of weights that a checkpoint lacks, but not of tied ones, which it holds under their other name.

        transformers 5.23 warns of each tied `lm_head.weight` on every resumed training; it leaves out only what a
        model class lists in `_keys_to_ignore_on_save`, which Llama and others no longer do.
        """
        weights = dict(self.model.named_parameters(remove_duplicate=False))
        missing = set(load_result.missing_keys)
        loaded = {id(weight) for name, weight in weights.items() if name not in missing}
        lacking = [name for name in load_result.missing_keys if name not in weights or id(weights[name]) not in loaded]
        super()._issue_warnings_after_load(load_result._replace(missing_keys=lacking))  # type: ignore[misc]

    def keep_figures(self, checkpoint: Path) -> None:
        """Writes what is summed up since figures were last logged, for each process its own."""
        kept = {name: getattr(self, name) for name in COUNTS}
        kept["_tr_loss"] = self._tr_loss.item()  # type: ignore[attr-defined]
        kept["_metrics"] = dict(self._metrics["train"])  # type: ignore[attr-defined]
        _figures(checkpoint, self.args).write_text(json.dumps(kept, default=float), encoding="utf-8")

    def take_up_figures(self, checkpoint: Path) -> None:
        """Reads them back, where they are: older checkpoints have none."""
        file = _figures(checkpoint, self.args)
        if not file.is_file():
            return
        kept = json.loads(file.read_text(encoding="utf-8"))
        self._tr_loss.fill_(kept.pop("_tr_loss"))  # type: ignore[attr-defined]
        self._metrics["train"].update(kept.pop("_metrics"))  # type: ignore[attr-defined]
        for name, value in kept.items():
            setattr(self, name, value)


COUNTS = ("_globalstep_last_logged", "_total_loss_scalar", "_total_train_tokens")


def _figures(checkpoint: Path, args: Any) -> Path:
    return checkpoint / f"figures-{args.process_index}.json"


def _texts(trainer: Any) -> list[tuple[int, ...]]:
    """The tokens of the texts that each row passes the model as."""
    rows = trainer.train_dataset
    if "input_ids" in rows.column_names:
        return [(tokens,) for tokens in _counts(rows, "input_ids")]
    pairs = zip(*(_counts(rows, name) for name in ("prompt_ids", "chosen_ids", "rejected_ids")), strict=True)
    if PACKED_PAIRS in trainer.data_collator([rows[0]]):
        return [(sum(pair),) for pair in pairs]
    return [(prompt + chosen, prompt + rejected) for prompt, chosen, rejected in pairs]


def _counts(rows: Any, column: str) -> list[int]:
    import pyarrow.compute as pc

    return [int(count) for count in pc.list_value_length(rows.data.column(column)).to_pylist()]
