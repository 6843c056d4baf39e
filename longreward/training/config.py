"""Settings that trainings share: optimizer, batch, checkpoints, LoRA; of SFT and DPO also lengths and launcher."""

import math
import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from longreward.config import Config
from longreward.models.config import OverWindow

ALL_LINEAR = "all-linear"
PrefixSharing = Literal["auto", "on", "off"]


class LoraSettings(Config):
    """Low-rank adapters in place of training all weights."""

    r: int = Field(default=16, ge=1)
    """Rank."""
    alpha: int = Field(default=32, ge=1)
    """The adapter's output is scaled by alpha / r."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """On the adapter's input (switched off by DPO, as TRL does)."""
    target_modules: str | tuple[str, ...] = ALL_LINEAR
    """Layers that get an adapter: all-linear; a list of names, as `[q_proj, v_proj]`; or a regular expression that
    matches the full name. The output embedding cannot be one."""
    modules_to_save: tuple[str, ...] = ()
    """Modules that are trained fully beside the adapters, as `[embed_tokens, lm_head]` for new tokens."""

    @field_validator("target_modules")
    @classmethod
    def _check_pattern(cls, targets: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not targets:
            raise ValueError(f"is empty; give {ALL_LINEAR} or names of layers")
        if isinstance(targets, str):
            try:
                re.compile(targets)
            except re.error as error:
                raise ValueError(f"is not a regular expression ({error}); give names as a list") from None
        return targets


class OptimizationSettings(Config):
    """The settings of a training in one process that depend neither on its loss nor on its data."""

    learning_rate: float = Field(gt=0, le=1)
    """Peak learning rate of AdamW."""
    epochs: float = Field(default=1.0, gt=0)
    """Passes over the data; max_steps takes precedence."""
    max_steps: int | None = Field(default=None, ge=1)
    """Stop after this many updates, whatever the epochs."""
    batch_size: int = Field(default=32, ge=1)
    """Examples or pairs in an update."""
    micro_batch: int = Field(default=1, ge=1)
    """How many of these pass the model at once; must divide batch_size."""
    scheduler: Literal["constant", "constant_with_warmup", "linear", "cosine"] = "cosine"
    """How the learning rate decays after the warm-up."""
    warmup: float = Field(default=0.03, ge=0)
    """Warm-up as a share of the steps (below 1) or as a number of steps. A share of less than one step is none. The
    first step of a warm-up has a learning rate of 0."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Of AdamW."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Clip gradients to this norm."""
    group_by_length: bool = True
    """Put texts of similar length into the same micro batch, across all processes, which saves padding; with
    prefix_sharing, texts about the same document, which saves computing it again. Each epoch still sees each text once.
    The very first micro batch is the largest one, so that a lack of memory shows at once."""
    gradient_checkpointing: bool = True
    """Recompute activations: less memory for about a fifth more time. Long contexts need it, small models do not."""
    bf16: bool | Literal["auto"] = "auto"
    """Compute in bfloat16 (autocast); weights and optimizer keep their type. auto: on a GPU that has it; on a CPU where
    a short measurement of the model shows that it is at least 1.5 times as fast as float32. The log and the metric
    `bf16` show the choice, and a resumed training keeps it."""
    lora: LoraSettings | None = None
    """null: train all weights."""
    seed: int = 0
    """Of the order of the data and of new adapters."""
    save_steps: int = Field(default=100, ge=1)
    """Updates between checkpoints, from which a killed training resumes."""
    log_steps: int = Field(default=10, ge=1)
    """Updates between logged metrics, which are means over them."""

    def count_updates(self, rows: int) -> int:
        """Return the number of updates of a training on so many examples or pairs."""
        return self.max_steps or math.ceil(self.epochs * math.ceil(rows / self.batch_size))

    @model_validator(mode="after")
    def _check_batch(self) -> Self:
        if self.batch_size % self.micro_batch:
            raise ValueError(f"micro_batch ({self.micro_batch}) must divide batch_size ({self.batch_size})")
        return self


class TrainingSettings(OptimizationSettings):
    """The settings of SFT and DPO that do not depend on their loss."""

    max_length: int | None = Field(default=None, ge=16)
    """Most tokens of a prompt with its answer; null: the policy's window. Answers are never cut: see over_window."""
    over_window: OverWindow = "refuse"
    """For what does not fit: stop before the first step, or keep the first and last halves of the prompt."""
    prefix_sharing: PrefixSharing = "auto"
    """Whether a document or prompt with which several texts of a micro batch begin is computed once for all of them:
    the same result in less time. auto: for every model that supports it, otherwise the log names the reason; on: stop
    where the model does not. The two responses of a pair share their prompt; examples share documents if micro_batch is
    above 1."""
    launcher: Literal["none", "accelerate"] = "none"
    """none: one process. accelerate: several processes with one GPU each, which share the batch_size of an update;
    needs policy.device_map: null."""
    launcher_config: str | None = None
    """How the processes share the model: fsdp2 (sharded), ddp (replicated), or the path of a file that `accelerate
    config` wrote; null: fsdp2."""
    processes: int | None = Field(default=None, ge=1)
    """Number of processes; micro_batch x processes must divide batch_size. null: as the launcher's file says, or one
    for each GPU."""

    @model_validator(mode="after")
    def _check_processes(self) -> Self:
        if self.batch_size % (self.micro_batch * (self.processes or 1)):
            raise ValueError(
                f"micro_batch x processes ({self.micro_batch} x {self.processes}) must divide batch_size "
                f"({self.batch_size})"
            )
        return self

    @model_validator(mode="after")
    def _check_launcher(self) -> Self:
        for name in ("processes", "launcher_config"):
            if self.launcher == "none" and getattr(self, name) is not None:
                raise ValueError(f"{name} ({getattr(self, name)}) needs a launcher: set launcher to accelerate")
        return self
