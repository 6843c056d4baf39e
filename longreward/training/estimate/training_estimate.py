"""The first step of a training, before its weights are loaded: check and tokenize the data, check the memory.

Raises here what would otherwise fail hours later: rows that do not fit `max_length`, a chat template that renders
other prompts in training than in sampling, a model whose optimizer states are more than the device has.
"""

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longreward.data.formats import read_examples, read_pairs
from longreward.errors import PolicyError
from longreward.models.config import PolicyConfig
from longreward.models.policy import load_tokenizer, policy_window
from longreward.training.config import TrainingSettings
from longreward.training.estimate.memory import (
    Device,
    MemoryEstimate,
    ModelShape,
    build_meta_model,
    estimate_memory,
    format_gb,
    local_device,
    measure_shape,
)
from longreward.training.launch.launcher import launcher_file
from longreward.training.length_grouping import build_sampler
from longreward.training.pair_encoding import TokenMismatch
from longreward.training.prefix.row_prefixes import RowPrefixes
from longreward.training.prefix.support import unsupported_config_reason
from longreward.training.template_check import check_template
from longreward.training.training_data import RowLengths, TrainingData, tokenize_examples, tokenize_pairs


@dataclass(frozen=True)
class TrainingEstimate:
    """The tokenized data of a training, and the memory that the training needs on `device`."""

    settings: TrainingSettings
    data: TrainingData
    pairs: bool
    prefixes: RowPrefixes | None
    """What the texts of a micro batch share if the model can; None where they share nothing, or should not."""
    shares: bool
    """Whether they do, as far as the model's config tells."""
    tokens_per_row: float
    """That pass the model."""
    micro_batch_tokens: int
    """That pass the model in the largest micro batch."""
    device: Device
    shape: ModelShape
    memory: MemoryEstimate
    shards: int = 1

    @property
    def steps(self) -> int:
        """The number of updates."""
        return self.settings.count_updates(self.data.stats.count)

    def metrics(self) -> dict[str, float]:
        """Return the estimate as numbers: bytes, tokens, steps."""
        return {
            "peak_bytes": self.memory.total,
            "fixed_bytes": self.memory.fixed,
            "tokens_per_row": self.tokens_per_row,
            "steps": self.steps,
        }

    def data_lines(self) -> Iterator[str]:
        """Describe the data: counts, lengths, where its token ids come from."""
        stats = self.data.stats
        cut = f"{stats.cut_prompts:,} prompts lose their middle (over_window: keep_ends)"
        yield (
            f"{stats.count:,} {'pairs' if self.pairs else 'examples'}, "
            f"{cut if stats.cut_prompts else 'nothing is cut'} at max_length {stats.limit:,}; tokens:"
        )
        lengths = self.data.row_lengths
        for column, name in enumerate(("prompt", "chosen", "rejected") if self.pairs else ("prompt", "answer")):
            values = sorted(row[column] for row in lengths)
            p95 = values[math.ceil(0.95 * len(values)) - 1]
            yield f"  {name:<9} median {statistics.median(values):,.0f}, p95 {p95:,}, longest {values[-1]:,}"
        if stats.answers.metrics():
            yield str(stats.answers)

    def memory_lines(self) -> Iterator[str]:
        """Describe the tokens of a step, the memory estimate and the device."""
        sharing = "on" if self.shares else "off"
        yield (
            f"a step: {self.settings.batch_size} rows of {self.tokens_per_row:,.0f} tokens on average "
            f"(prefix sharing is {sharing})"
        )
        sharded = f", divided among {self.shards} processes" if self.shards > 1 else ""
        yield (
            f"estimated peak memory: {format_gb(self.memory.total)}, of which weights, gradients and AdamW take "
            f"{format_gb(self.memory.fixed)}{sharded}; {self.device.name} has {format_gb(self.device.memory)}"
        )
        yield f"{self.steps:,} steps; their time is measured when the training starts"


def estimate_training(
    settings: TrainingSettings,
    policy: PolicyConfig,
    *,
    model: str,
    data: Path,
    rows_dir: Path | None = None,
    token_mismatch: TokenMismatch | None = None,
    device: Device | None = None,
    processes: int | None = None,
) -> TrainingEstimate:
    """Check and tokenize `data`, and estimate the memory on `device` (None: this machine's).

    With `token_mismatch` the data holds pairs, without it examples. Loads a tokenizer and a config, but no weights. The
    caller decides what to do where the estimate does not fit.
    """
    tokenizer = load_tokenizer(policy, model)
    limit = settings.max_length or policy_window(policy, model)
    if limit is None:
        raise PolicyError(f"{model}: its config does not say how long a text may be; set policy.window")
    options: dict[str, Any] = {"max_length": limit, "over_window": settings.over_window, "rows_dir": rows_dir}
    meta_model = build_meta_model(policy, model, lora=settings.lora)
    pairs = token_mismatch is not None
    if token_mismatch is not None:
        check_template(tokenizer, read_pairs(data))
        rows = tokenize_pairs(tokenizer, read_pairs(data), token_mismatch=token_mismatch, **options)
    else:
        check_template(tokenizer, read_examples(data))
        rows = tokenize_examples(tokenizer, read_examples(data), **options)
    prefixes = find_prefixes(settings, rows)
    shares = prefixes is not None and unsupported_config_reason(meta_model, longest=rows.stats.longest) is None

    shape = measure_shape(meta_model, settings.lora)
    device = device or local_device(policy)
    processes = processes or settings.processes or 1
    mean, largest = _row_tokens(
        settings, rows.row_lengths, prefixes if shares else None, pairs=pairs, processes=processes
    )
    answers = sorted((sum(row[1:]) for row in rows.row_lengths), reverse=True)
    # All launchers but DDP divide the model among the processes.
    replicated = settings.launcher_config is not None and launcher_file(settings).kind.startswith("MULTI_")
    shards = 1 if replicated else processes
    memory = estimate_memory(
        shape,
        tokens=largest,
        scored=sum(answers[: settings.micro_batch]),
        # On a CPU the training measures the model; until then float32, which needs more memory.
        bf16=device.cuda if settings.bf16 == "auto" else settings.bf16,
        cuda=device.cuda,
        checkpointing=settings.gradient_checkpointing,
        shards=shards,
    )
    return TrainingEstimate(settings, rows, pairs, prefixes, shares, mean, largest, device, shape, memory, shards)


def find_prefixes(settings: TrainingSettings, data: TrainingData) -> RowPrefixes | None:
    """Return what the texts of a micro batch may share; None where that is nothing, or the settings say so."""
    pairs = "prompt_ids" in data.rows.column_names
    if settings.prefix_sharing == "off" or (settings.micro_batch == 1 and not pairs):
        return None
    prefixes = RowPrefixes.of_rows(data.rows)
    return prefixes if pairs or len(prefixes.families) < len(prefixes.order) else None


def _row_tokens(
    settings: TrainingSettings, rows: list[RowLengths], prefixes: RowPrefixes | None, *, pairs: bool, processes: int
) -> tuple[float, int]:
    """Return the tokens that pass the model: for a row on average, and in the largest micro batch."""
    size = settings.micro_batch
    if prefixes is None:
        costs = [2 * (prompt + max(answers)) if pairs else prompt + sum(answers) for prompt, *answers in rows]
        # The most expensive rows pass the model together where rows are grouped by length.
        return statistics.fmean(costs), sum(sorted(costs, reverse=True)[:size])
    sampler = build_sampler(
        [prompt + max(answers) for prompt, *answers in rows],
        prefixes,
        grouped=settings.group_by_length,
        micro_batch=size,
        processes=processes,
        seed=settings.seed,
    )
    order = sampler.epoch_order(0)
    costs = [prefixes.tokens(order[start : start + size]) for start in range(0, len(order), size)]
    return sum(costs) / len(order), max(costs)
