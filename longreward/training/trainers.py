"""The SFT model's log-probabilities of both answers of each pair: computed once, kept with the training's checkpoints.

    reference.json      {"ref_chosen_logps": [-12.5, …], "ref_rejected_logps": […]}, in the order of the rows

TRL would keep them in a file of the datasets library, which for data in memory does not outlive the process.
"""

import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import AutocastKwargs, broadcast_object_list, gather_object
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import set_seed
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from longreward.errors import StateError
from longreward.models.policy import Policy
from longreward.records import is_short
from longreward.training.dropout import disable_dropout
from longreward.training.exact_resume import ExactResumeMixin
from longreward.training.prefix.sharing import PairCollator, share_prefix
from longreward.utils.progress import show_progress

COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")


def add_reference_logps(
    trainer: Any, model: Any, rows: Dataset, *, kept: Path, batch_size: int, untrained: bool
) -> Dataset:
    """`rows` with COLUMNS, from the file `kept` where it is there, else from `model`, which is not yet trained.

    All processes call it together: each passes its share of the rows through `model`. StateError where there is no
    file and the model is that of a checkpoint (not `untrained`).
    """
    process = trainer.accelerator
    read = json.loads(kept.read_text(encoding="utf-8")) if process.is_main_process and kept.is_file() else None
    [found] = broadcast_object_list([read])
    if found is None:
        if not untrained:
            raise StateError(f"{kept} is missing beside its checkpoints; delete the folder {kept.parent} to start anew")
        found = _computed(trainer, model, rows, batch_size)
        if process.is_main_process:
            _keep(kept, found)
        process.wait_for_everyone()
    for column in COLUMNS:
        rows = rows.add_column(column, found[column])
    return rows


def _computed(trainer: Any, model: Any, rows: Dataset, batch_size: int) -> dict[str, list[float]]:
    process = trainer.accelerator
    by_length = sorted(range(len(rows)), key=rows["length"].__getitem__)
    # A model in parts answers only when all processes ask, so that all must have as many batches.
    evened = by_length + by_length[:1] * (-len(by_length) % process.num_processes)
    own = evened[process.process_index :: process.num_processes]
    loader = DataLoader(rows.select(own), batch_size=batch_size, collate_fn=trainer.data_collator)
    batches = []
    with show_progress("train, batches of the reference", enabled=process.is_main_process) as update:
        for batch in loader:
            batches.append(trainer.compute_ref_log_probs(model, trainer._prepare_inputs(batch)))
            update(len(batches), len(loader))
    chosen, rejected = ([value for batch in batches for value in batch[side].tolist()] for side in (0, 1))
    at = {row: values for row, *values in gather_object(list(zip(own, chosen, rejected, strict=True)))}
    return {column: [at[row][side] for row in range(len(rows))] for side, column in enumerate(COLUMNS)}


def _keep(path: Path, found: dict[str, list[float]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(found), encoding="utf-8")
    part.replace(path)


# How well long and short pairs are told apart, each side for itself, where both are trained on.
#
#     rewards/margins             the trainer's own figures, over all pairs
#     long/rewards/margins        over those with a document
#     short/rewards/margins       over those without
#
# The trainer keeps means alone, so that the answers' log-probabilities are looked at as they leave the model. Without a
# short pair nothing of this takes place.
#
# Imports torch at its top, so import it only where a training starts.


IS_SHORT = "short_pairs"


@dataclass(frozen=True)
class SourceTaggingCollator:
    """A collator whose batches say which pairs are short, [pairs] of 0 and 1, under SIDE."""

    collator: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        batch = self.collator(rows)
        batch[IS_SHORT] = torch.tensor([float(is_short(row["id"])) for row in rows])
        return batch


def log_by_source(trainer: Any) -> None:
    """Makes a trainer of pairs keep the figures of each side, where there are short ones."""
    if any(map(is_short, trainer.train_dataset["id"])):
        trainer.data_collator = SourceTaggingCollator(trainer.data_collator)


@contextmanager
def capture_logps(model: Any) -> Iterator[list[torch.Tensor]]:
    """The log-probabilities of the tokens, [2 * pairs, tokens], of each batch that passes the model meanwhile."""
    found: list[torch.Tensor] = []
    hook = model.register_forward_hook(lambda module, positional, output: found.append(output.log_probs.detach()))
    try:
        yield found
    finally:
        hook.remove()


def metrics_by_source(margins: Sequence[float], short: Sequence[float]) -> dict[str, list[float]]:
    """Each pair's figures under its side's names.

    >>> figures_by_side([1.5, -0.5], [0.0, 1.0])["short/rewards/accuracies"]
    [0.0]
    """
    found: dict[str, list[float]] = {}
    for margin, without in zip(margins, short, strict=True):
        side = "short" if without else "long"
        found.setdefault(f"{side}/rewards/margins", []).append(margin)
        found.setdefault(f"{side}/rewards/accuracies", []).append(float(margin > 0))
    return found


# TRL's trainers on rows that are token ids already, so that no other rendering or cutting takes place.
#
# Imports torch and TRL at its top, so import it only where a training starts.


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
        short = inputs.pop(IS_SHORT, None)
        if short is None:
            return super()._compute_loss(model, inputs, return_outputs)
        with capture_logps(self.accelerator.unwrap_model(model)) as said:
            loss = super()._compute_loss(model, inputs, return_outputs)
        # the model is asked for the answers' tokens alone, or for whole texts of which the mask leaves the answers
        answers = inputs["completion_mask"][:, 1:]
        chosen, rejected = (said[0][:, -answers.shape[1] :] * answers).sum(dim=1).chunk(2)
        margins = self.beta * (chosen - inputs["ref_chosen_logps"] - rejected + inputs["ref_rejected_logps"])
        told = self.accelerator.gather(torch.stack([margins, short.to(margins)], dim=1)).tolist()
        for name, values in metrics_by_source(*zip(*told, strict=True)).items():
            self._metrics["train" if self.model.training else "eval"][name] += values
        return loss

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Any]) -> Any:
        return super().compute_ref_log_probs(model, {k: v for k, v in inputs.items() if k != IS_SHORT})

    @property
    def _in_parts(self) -> bool:
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        if self._in_parts:
            return dataset
        return add_reference_logps(self, self.model, dataset, kept=self._kept, batch_size=batch_size, untrained=True)

    def _prepare_for_training(self, max_steps: int, loader: Any, checkpoint: Any) -> Any:
        model, loader = super()._prepare_for_training(max_steps, loader, checkpoint)
        if not self._in_parts:
            return model, loader
        size, untrained = self.args.precompute_ref_batch_size or 1, checkpoint is None
        with _as_it_is_trained(self.accelerator):
            self.train_dataset = add_reference_logps(
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
