"""The first step of a training, before its weights are loaded: check and tokenize the data, check the memory.

Raises here what would otherwise fail hours later: rows that do not fit `max_length`, a chat template that renders
other prompts in training than in sampling, a model whose optimizer states are more than the device has.
"""

import logging
import math
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from longreward.data.formats import read_examples, read_pairs
from longreward.errors import PolicyError
from longreward.models.config import PolicyConfig
from longreward.models.policy import load_tokenizer, policy_window
from longreward.training.config import TrainingSettings
from longreward.training.distributed import is_main_process
from longreward.training.estimate.memory import (
    Device,
    MemoryEstimate,
    ModelShape,
    build_meta_model,
    check_fits,
    estimate_memory,
    format_gb,
    local_device,
    measure_shape,
)
from longreward.training.pair_encoding import TokenMismatch
from longreward.training.template_check import TemplateReport, check_template
from longreward.training.training_data import RowLengths, TrainingData, tokenize_examples, tokenize_pairs

PrefixSharing = Literal["auto", "on", "off"]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PairOptions:
    """The settings of DPO that the data and the estimate depend on."""

    prefix_sharing: PrefixSharing = "auto"
    token_mismatch: TokenMismatch = "refuse"


@dataclass(frozen=True)
class TrainingEstimate:
    """The tokenized data of a training, and the memory that the training needs on `device`."""

    settings: TrainingSettings
    data: TrainingData
    template: TemplateReport
    pairs: bool
    share: bool
    """Whether both responses of a pair share their prompt."""
    device: Device
    shape: ModelShape
    memory: MemoryEstimate
    shards: int = 1

    @property
    def steps(self) -> int:
        """The number of updates."""
        per_epoch = math.ceil(self.data.stats.count / self.settings.batch_size)
        return self.settings.max_steps or math.ceil(self.settings.epochs * per_epoch)

    def metrics(self) -> dict[str, float]:
        """Return the estimate as numbers: bytes, tokens, steps."""
        return {
            "peak_bytes": self.memory.total,
            "fixed_bytes": self.memory.fixed,
            "tokens_per_row": self._mean_tokens(self.share),
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
        if self.template.answers:
            yield str(self.template)

    def memory_lines(self) -> Iterator[str]:
        """Describe the compute of a step and each term of the memory estimate."""
        batch = self.settings.batch_size
        yield f"a step: {batch} rows, {self._mean_tokens(self.share) * batch:,.0f} tokens to compute"
        if self.pairs:
            shared, separate = self._mean_tokens(True), self._mean_tokens(False)
            state = "on" if self.share else "off"
            yield f"  prefix sharing is {state}: {shared:,.0f} tokens a pair with it, {separate:,.0f} without"
        sharded = f", divided among {self.shards} processes" if self.shards > 1 else ""
        device = f"{self.device.name}, {format_gb(self.device.memory)}"
        yield f"estimated peak memory: {format_gb(self.memory.total)} ({device}{sharded})"
        yield f"  {self.shape.parameters:,} parameters, {self.shape.trainable:,} of them trained"
        for name, size in asdict(self.memory).items():
            yield f"  {format_gb(size):>10}  {name.replace('_', ' ')}"
        yield f"{self.steps:,} steps; their time is measured when the training starts"

    def _mean_tokens(self, share: bool) -> float:
        costs = [_row_tokens(row, pairs=self.pairs, share=share) for row in self.data.row_lengths]
        return sum(costs) / len(costs)


def load_training_data(
    settings: TrainingSettings,
    policy: PolicyConfig,
    *,
    model: str,
    data: Path,
    rows_dir: Path,
    pair_options: PairOptions | None = None,
) -> TrainingData:
    """Check and tokenize `data` into `rows_dir`, and log what it holds; with `pair_options` it holds pairs.

    PolicyError or DataError where the data, or this machine's memory, does not suffice.
    """
    estimate = estimate_training(settings, policy, model=model, data=data, rows_dir=rows_dir, pair_options=pair_options)
    if is_main_process():
        for line in estimate.data_lines():
            log.info("%s", line)
    check_fits(estimate.shape, estimate.memory, estimate.device)
    return estimate.data


def estimate_training(
    settings: TrainingSettings,
    policy: PolicyConfig,
    *,
    model: str,
    data: Path,
    rows_dir: Path | None = None,
    pair_options: PairOptions | None = None,
    device: Device | None = None,
    processes: int | None = None,
) -> TrainingEstimate:
    """Check and tokenize `data`, and estimate the memory on `device` (None: this machine's).

    Loads a tokenizer and a config, but no weights. The caller decides what to do where the estimate does not fit.
    """
    tokenizer = load_tokenizer(policy, model)
    limit = settings.max_length or policy_window(policy, model)
    if limit is None:
        raise PolicyError(f"{model}: its config does not say how long a text may be; set policy.window")
    options: dict[str, Any] = {"max_length": limit, "over_window": settings.over_window, "rows_dir": rows_dir}
    if pair_options:
        template = check_template(tokenizer, read_pairs(data))
        rows = tokenize_pairs(tokenizer, read_pairs(data), token_mismatch=pair_options.token_mismatch, **options)
    else:
        template = check_template(tokenizer, read_examples(data))
        rows = tokenize_examples(tokenizer, read_examples(data), **options)

    meta_model = build_meta_model(policy, model, lora=settings.lora)
    share = pair_options is not None and _can_share(pair_options, meta_model, rows.stats.longest)
    shape = measure_shape(meta_model, settings.lora)
    device = device or local_device(policy)
    pairs = pair_options is not None
    # The most expensive rows pass the model together where rows are grouped by length.
    costs = sorted((_row_tokens(row, pairs=pairs, share=share) for row in rows.row_lengths), reverse=True)
    answers = sorted((sum(row[1:]) for row in rows.row_lengths), reverse=True)
    shards = (processes or settings.processes or 1) if _is_sharded(settings) else 1
    # On a CPU the training measures the model; until then float32, which needs more memory.
    bf16 = device.cuda if settings.bf16 == "auto" else settings.bf16
    tokens = sum(costs[: settings.micro_batch])
    # Off CUDA, TRL's LM head scores whole rows unless prefix sharing leaves it the responses only.
    scored = sum(answers[: settings.micro_batch]) if device.cuda or share else tokens
    memory = estimate_memory(
        shape,
        tokens=tokens,
        scored=scored,
        bf16=bf16,
        cuda=device.cuda,
        checkpointing=settings.gradient_checkpointing,
        shards=shards,
    )
    return TrainingEstimate(
        settings=settings,
        data=rows,
        template=template,
        pairs=pairs,
        share=share,
        device=device,
        shape=shape,
        memory=memory,
        shards=shards,
    )


def _row_tokens(row: RowLengths, *, pairs: bool, share: bool) -> int:
    """Tokens that pass the model for one row: P + C + R where the prompt is shared, else 2 x (P + max(C, R))."""
    prompt, chosen, rejected = row
    if share or not pairs:
        return prompt + chosen + rejected
    return 2 * (prompt + max(chosen, rejected))


def _can_share(options: PairOptions, meta_model: Any, longest: int) -> bool:
    from longreward.training.prefix.support import unsupported_config_reason

    return options.prefix_sharing != "off" and unsupported_config_reason(meta_model, longest=longest) is None


def _is_sharded(settings: TrainingSettings) -> bool:
    """Whether each process holds a part of the model: all launchers but DDP."""
    from longreward.training.launch.launcher import launcher_file

    return settings.launcher_config is None or not launcher_file(settings).kind.startswith("MULTI_")
