"""TRL's trainers on rows that are token ids already, so that TRL neither renders nor truncates anything.

DPO also needs:

- the cross-entropy of the chosen responses, averaged over each one's tokens. TRL's "sft" loss averages over all tokens
  of a micro batch, so that long responses weigh more than short ones beside them.
- the reference's log-probabilities, computed once and kept beside the checkpoints. TRL would keep them in the cache of
  the datasets library, which for data in memory does not outlive the process.
    reference.json      {"ref_chosen_logps": [-12.5, …], "ref_rejected_logps": […]}, in the order of the rows
- metrics by source where short pairs are mixed in; TRL logs means over all pairs only.
    long/rewards/margins, short/rewards/margins, long/rewards/accuracies, short/rewards/accuracies

Imports torch and TRL at the top, so import it only where a training starts.
"""

import json
import os
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
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer
from trl.trainer import dpo_trainer as dpo_trainer_module
from trl.trainer import utils as trl_utils

from longreward.data.short_ids import has_short_prefix
from longreward.errors import StateError
from longreward.models.policy import Policy
from longreward.training.dropout import disable_dropout
from longreward.training.exact_resume import ExactResumeMixin
from longreward.training.lora import ignore_checkpointing_warnings
from longreward.training.prefix.row_prefixes import RowPrefixes
from longreward.training.prefix.sharing import ExampleCollator, PairCollator, share_prefix
from longreward.utils.jsonl import open_atomic
from longreward.utils.progress import show_progress

REFERENCE_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")
IS_SHORT = "is_short"
"""The key of a batch that holds 1 for each pair of short instructions, 0 for a long pair."""


def sft_trainer(
    policy: Policy, rows: Dataset, peft_config: Any, arguments: dict[str, Any], *, prefixes: RowPrefixes | None = None
) -> Any:
    """Build a trainer on rows of `input_ids` and `labels`; the loss is the mean over an update's answer tokens.

    With `prefixes`, what the rows share, the texts of a micro batch share them (prefix/sharing.py).
    """
    arguments = arguments | {"dataset_kwargs": {"skip_prepare_dataset": True}}
    collator = _prepare_collator(ExampleCollator, policy, prefixes)
    options = {"prefixes": prefixes, "data_collator": collator}
    return _build_trainer(_SftTrainer, SFTConfig, arguments, policy, rows, peft_config, **options)


def dpo_trainer(
    policy: Policy,
    rows: Dataset,
    peft_config: Any,
    arguments: dict[str, Any],
    *,
    ce_weight: float,
    reference_file: Path,
    prefixes: RowPrefixes | None = None,
) -> Any:
    """Build a trainer on rows of `prompt_ids`, `chosen_ids`, `rejected_ids`.

    `ce_weight` is that of the chosen response's cross-entropy, which is added to the loss in `arguments`. The
    reference's log-probabilities are read from `reference_file` if it exists, else computed and written there.
    With `prefixes`, what the rows share, the texts of a micro batch share them (prefix/sharing.py).
    """
    disable_dropout(policy.model)
    collator = _prepare_collator(PairCollator, policy, prefixes)
    options = {"ce_weight": ce_weight, "reference_file": reference_file}
    options |= {"prefixes": prefixes, "data_collator": collator}
    trainer = _build_trainer(_DpoTrainer, DPOConfig, arguments, policy, rows, peft_config, **options)
    if any(map(has_short_prefix, trainer.train_dataset["id"])):
        trainer.data_collator = SourceTaggingCollator(trainer.data_collator)
    return trainer


def reward_trainer(policy: Policy, rows: Dataset, peft_config: Any, arguments: dict[str, Any]) -> Any:
    """Build a trainer of a sequence classifier on rows of `chosen_ids` and `rejected_ids`, and maybe a `margin`.

    The loss is -log sigmoid(reward of chosen - reward of rejected - margin).
    """
    _drop_padding_mask(policy.model)
    return _build_trainer(_RewardTrainer, RewardConfig, arguments, policy, rows, peft_config)


def _prepare_collator(
    collator: type[ExampleCollator | PairCollator], policy: Policy, prefixes: RowPrefixes | None
) -> ExampleCollator | PairCollator | None:
    """Prepare the model for shared prefixes, or for padded texts, and return the collator; None: TRL's own."""
    if prefixes is None:
        _drop_padding_mask(policy.model)
        return None
    share_prefix(policy.model)
    return collator(pad_token_id=policy.encoder.end_ids[0])  # padding is never scored: any id works


def _build_trainer(
    trainer_class: Any,
    config_class: Any,
    arguments: dict[str, Any],
    policy: Policy,
    rows: Dataset,
    peft_config: Any,
    **options: Any,
) -> Any:
    with ignore_checkpointing_warnings():
        config = config_class(**arguments)
        # transformers would replicate the model on every visible GPU, which multiplies the batch size.
        config._n_gpu = min(config.n_gpu, 1)
        set_seed(config.seed)  # a new adapter is initialized before the trainer sets the seed
        return trainer_class(
            args=config,
            model=policy.model,
            train_dataset=rows,
            processing_class=policy.tokenizer,
            peft_config=peft_config,
            **options,
        )


def _drop_padding_mask(model: Any) -> None:
    """Remove the attention mask: it only covers the padding behind each text, which causal attention never sees.

    Without a mask attention takes its causal path: a third less work on a CPU, and on a GPU no length x length mask.
    """

    def drop(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, "attention_mask": None}

    # On the base model, since PEFT and TRL call it without the causal-LM head in between.
    model.base_model.register_forward_pre_hook(drop, with_kwargs=True)


@contextmanager
def _score_answers_only() -> Iterator[None]:
    """Let TRL compute logits at the positions of answers only, also on a CPU, in the body.

    TRL 1.16 does so where Triton compiles kernels, that is, on GPUs. Elsewhere it scores every position and discards
    the prompt's: 22 % of an SFT step of the built-in model, and more with a large vocabulary. Loss and gradients are
    the same up to rounding. TRL's function is replaced during our forward passes only: other trainers of the process
    compute as before.
    """
    use_triton = trl_utils._use_triton
    trl_utils._use_triton = lambda device: device.type == "cpu" or use_triton(device)
    try:
        yield
    finally:
        trl_utils._use_triton = use_triton


class _CompletionTrainerMixin(ExactResumeMixin):
    def __init__(self, *, prefixes: RowPrefixes | None, **kwargs: Any) -> None:
        self.prefixes = prefixes
        super().__init__(**kwargs)

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        with _score_answers_only():
            return super().compute_loss(*args, **kwargs)  # type: ignore[misc]


class _SftTrainer(_CompletionTrainerMixin, SFTTrainer):  # type: ignore[misc]
    pass


class _RewardTrainer(ExactResumeMixin, RewardTrainer):  # type: ignore[misc]
    pass


class _DpoTrainer(_CompletionTrainerMixin, DPOTrainer):  # type: ignore[misc]
    """DPO with a cross-entropy term, and the reference's log-probabilities in a file.

    A sharded model computes them itself before its first update. Under FSDP, TRL would load a second model for that,
    without its revision, and hold it unsharded on every GPU.
    """

    def __init__(self, ce_weight: float, reference_file: Path, **kwargs: Any) -> None:
        self._ce_weight, self._reference_file = ce_weight, reference_file
        if os.environ.get("ACCELERATE_USE_FSDP") == "true" and kwargs["peft_config"] is None:
            kwargs["ref_model"] = torch.nn.Module()  # a placeholder that is never called
            kwargs["ref_model"].config = kwargs["model"].config
        with _without_model_hash():
            super().__init__(**kwargs)
        self.ref_model = None

    def _prepare_dataset(self, dataset: Dataset, *args: Any) -> Dataset:
        return dataset

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        """Add the cross-entropy to TRL's loss; where the batch says which pairs are short, log metrics by source."""
        short = inputs.pop(IS_SHORT, None)
        with capture_logps(self.accelerator.unwrap_model(model)) as captured:
            loss = super()._compute_loss(model, inputs, return_outputs)
        # With shared prefixes the model returns the responses' tokens only, else those of the full texts.
        mask = inputs["completion_mask"][:, 1:]
        logps = captured[0][:, -mask.shape[1] :] * mask
        if self._ce_weight:
            chosen, chosen_mask = logps.chunk(2)[0], mask.chunk(2)[0]
            loss = loss - self._ce_weight * (chosen.sum(dim=1) / chosen_mask.sum(dim=1)).mean()
        if short is not None:
            self._log_by_source(logps.detach(), short, inputs)
        return loss

    def _log_by_source(self, logps: torch.Tensor, short: torch.Tensor, inputs: dict[str, Any]) -> None:
        chosen, rejected = logps.sum(dim=1).chunk(2)
        margins = self.beta * (chosen - inputs["ref_chosen_logps"] - rejected + inputs["ref_rejected_logps"])
        gathered = self.accelerator.gather(torch.stack([margins, short.to(margins)], dim=1)).tolist()
        for name, values in metrics_by_source(*zip(*gathered, strict=True)).items():
            self._metrics["train" if self.model.training else "eval"][name] += values

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Any]) -> Any:
        # TRL passes all keys of the batch on to the model.
        inputs = {k: v for k, v in inputs.items() if k != IS_SHORT}
        with _score_answers_only():
            return super().compute_ref_log_probs(model, inputs)

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        if self.is_sharded:
            return dataset
        return add_reference_logps(
            self, self.model, dataset, file=self._reference_file, batch_size=batch_size, untrained=True
        )

    def _prepare_for_training(self, max_steps: int, loader: Any, checkpoint: Any) -> Any:
        model, loader = super()._prepare_for_training(max_steps, loader, checkpoint)
        if not self.is_sharded:
            return model, loader
        # TRL's autocast is off for the reference: FSDP2 casts to bfloat16 by itself and rounds differently.
        accelerator = self.accelerator
        handler, accelerator.autocast_handler = accelerator.autocast_handler, AutocastKwargs(enabled=False)
        try:
            self.train_dataset = add_reference_logps(
                self,
                model,
                self.train_dataset,
                file=self._reference_file,
                batch_size=self.args.precompute_ref_batch_size or 1,
                untrained=checkpoint is None,
            )
        finally:
            accelerator.autocast_handler = handler
        return model, self.get_train_dataloader()


@contextmanager
def _without_model_hash() -> Iterator[None]:
    """Keep TRL from hashing all weights for its cache of reference log-probabilities, which `reference_file` replaces.

    TRL 1.16 copies them to the CPU in float32 for SHA-256: half a minute or more for 8B weights.
    """
    hash_module = dpo_trainer_module.hash_module
    dpo_trainer_module.hash_module = lambda module: ""
    try:
        yield
    finally:
        dpo_trainer_module.hash_module = hash_module


def add_reference_logps(
    trainer: Any, model: Any, rows: Dataset, *, file: Path, batch_size: int, untrained: bool
) -> Dataset:
    """Add REFERENCE_COLUMNS to `rows`: from `file` if it exists, else from `model`, and write them to `file`.

    All processes call it together; each computes its share of the rows. StateError where there is no file and `model`
    comes from a checkpoint (not `untrained`), since the reference is the untrained model.
    """
    accelerator = trainer.accelerator
    stored = json.loads(file.read_text(encoding="utf-8")) if accelerator.is_main_process and file.is_file() else None
    [logps] = broadcast_object_list([stored])
    if logps is None:
        if not untrained:
            raise StateError(
                f"{file} is missing beside its checkpoints; delete the folder {file.parent} to start from the beginning"
            )
        logps = _compute_reference_logps(trainer, model, rows, batch_size)
        if accelerator.is_main_process:
            with open_atomic(file) as text:
                json.dump(logps, text)
        accelerator.wait_for_everyone()
    for column in REFERENCE_COLUMNS:
        rows = rows.add_column(column, logps[column])
    return rows


def _compute_reference_logps(trainer: Any, model: Any, rows: Dataset, batch_size: int) -> dict[str, list[float]]:
    accelerator = trainer.accelerator
    shared, processes = trainer.prefixes is not None, accelerator.num_processes
    order = [*trainer.prefixes.order] if shared else sorted(range(len(rows)), key=rows["length"].__getitem__)
    # A sharded model computes only when all processes call it, so all need the same number of batches.
    padded = order + order[:1] * (-len(order) % processes)
    count = len(padded) // processes
    # Rows that share a prefix stay together. Long rows are spread over the processes.
    process_rows = (
        padded[accelerator.process_index * count :][:count]
        if shared
        else padded[accelerator.process_index :: processes]
    )
    loader = DataLoader(rows.select(process_rows), batch_size=batch_size, collate_fn=trainer.data_collator)
    batches = []
    with show_progress("train, batches of the reference", enabled=accelerator.is_main_process) as update:
        for batch in loader:
            batches.append(trainer.compute_ref_log_probs(model, trainer._prepare_inputs(batch)))
            update(len(batches), len(loader))
    chosen, rejected = ([value for batch in batches for value in batch[index].tolist()] for index in (0, 1))
    by_row = {row: values for row, *values in gather_object(list(zip(process_rows, chosen, rejected, strict=True)))}
    return {column: [by_row[row][index] for row in range(len(rows))] for index, column in enumerate(REFERENCE_COLUMNS)}


@dataclass(frozen=True)
class SourceTaggingCollator:
    """Adds to each batch of `collator`, under IS_SHORT, which pairs are short: [pairs] of 0 and 1."""

    collator: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        batch = self.collator(rows)
        batch[IS_SHORT] = torch.tensor([float(has_short_prefix(row["id"])) for row in rows])
        return batch


@contextmanager
def capture_logps(model: Any) -> Iterator[list[torch.Tensor]]:
    """Collect the tokens' log-probabilities, [2 * pairs, tokens], of each batch that passes `model` in the body."""
    captured: list[torch.Tensor] = []
    hook = model.register_forward_hook(lambda module, args, output: captured.append(output.log_probs))
    try:
        yield captured
    finally:
        hook.remove()


def metrics_by_source(margins: Sequence[float], short: Sequence[float]) -> dict[str, list[float]]:
    """Return each pair's metrics under the names of its source.

    >>> metrics_by_source([1.5, -0.5], [0.0, 1.0])["short/rewards/accuracies"]
    [0.0]
    """
    metrics: dict[str, list[float]] = {}
    for margin, pair_is_short in zip(margins, short, strict=True):
        source = "short" if pair_is_short else "long"
        metrics.setdefault(f"{source}/rewards/margins", []).append(margin)
        metrics.setdefault(f"{source}/rewards/accuracies", []).append(float(margin > 0))
    return metrics
