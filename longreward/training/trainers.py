"""TRL's trainers on rows that are token ids already, so that no other rendering or cutting takes place.

Imports torch and TRL at its top, so import it only where a training starts.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import set_seed
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from longreward.policy import Policy


def sft_trainer(policy: Policy, rows: Dataset, peft_config: Any, arguments: dict[str, Any]) -> Any:
    """A trainer on rows of `input_ids` and `labels`; the loss is the mean over all answers' tokens of an update."""
    set_seed(arguments["seed"])  # a new adapter is drawn before the trainer seeds
    return _SftTrainer(
        model=policy.model,
        args=_config(SFTConfig, **arguments, dataset_kwargs={"skip_prepare_dataset": True}),
        train_dataset=rows,
        processing_class=policy.tokenizer,
        peft_config=peft_config,
    )


def dpo_trainer(policy: Policy, rows: Dataset, peft_config: Any, arguments: dict[str, Any], *, kept: Path) -> Any:
    """A trainer on rows of `prompt_ids`, `chosen_ids`, `rejected_ids`; `kept` holds the reference for a later call."""
    set_seed(arguments["seed"])
    return _DpoTrainer(
        kept,
        model=policy.model,
        args=_config(DPOConfig, **arguments),
        train_dataset=rows,
        processing_class=policy.tokenizer,
        peft_config=peft_config,
    )


def _config(kind: Any, **arguments: Any) -> Any:
    with warnings.catch_warnings():
        # TRL still sets it by this name itself, so that its successor in transformers cannot be used yet.
        warnings.filterwarnings("ignore", message="`gradient_checkpointing` is deprecated", category=FutureWarning)
        return kind(**arguments)


class _SftTrainer(SFTTrainer):  # type: ignore[misc]
    def create_model_card(self, *args: Any, **more: Any) -> None:
        """TRL writes a card into each checkpoint; nobody reads it there."""


class _DpoTrainer(DPOTrainer):  # type: ignore[misc]
    def __init__(self, kept: Path, **more: Any) -> None:
        self._kept = kept
        super().__init__(**more)

    def create_model_card(self, *args: Any, **more: Any) -> None:
        """As above."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """The SFT model's log-probabilities of both answers, computed once and kept with the training's checkpoints.

        TRL would keep them in a file of the datasets library, which for data in memory does not outlive the process.
        """
        if self._kept.is_file():
            found = json.loads(self._kept.read_text(encoding="utf-8"))
        else:
            found = self._reference(dataset, batch_size)
            self._kept.parent.mkdir(parents=True, exist_ok=True)
            part = self._kept.with_suffix(".part")
            part.write_text(json.dumps(found), encoding="utf-8")
            part.replace(self._kept)
        for column, values in found.items():
            dataset = dataset.add_column(column, values)
        return dataset

    def _reference(self, dataset: Dataset, batch_size: int) -> dict[str, list[float]]:
        by_length = sorted(range(len(dataset)), key=dataset["length"].__getitem__)
        loader = DataLoader(dataset.select(by_length), batch_size=batch_size, collate_fn=self.data_collator)
        batches = [self.compute_ref_log_probs(self.model, self._prepare_inputs(batch)) for batch in loader]
        found: dict[str, list[float]] = {}
        for side, column in enumerate(("ref_chosen_logps", "ref_rejected_logps")):
            values = torch.cat([batch[side] for batch in batches]).tolist()
            at = dict(zip(by_length, values, strict=True))
            found[column] = [at[index] for index in range(len(dataset))]
        return found
