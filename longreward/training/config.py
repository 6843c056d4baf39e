"""What supervised fine-tuning and DPO have in common: the optimiser, the batch, the lengths, checkpoints, LoRA."""

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from longreward.config import Config
from longreward.models.config import OverWindow

ALL_LINEAR = "all-linear"


class LoraSettings(Config):
    """Low-rank adapters in place of training all weights."""

    r: int = Field(default=16, ge=1)
    """Rank."""
    alpha: int = Field(default=32, ge=1)
    """The adapter's output is scaled by alpha / r."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """On the adapter's input (switched off by DPO, as TRL does)."""
    target_modules: str | tuple[str, ...] = ALL_LINEAR
    """Layers that get an adapter: all-linear; a list of names, as `[q_proj, v_proj]`; or a regular expression of the
    whole name. The output embedding cannot be one."""
    modules_to_save: tuple[str, ...] = ()
    """Parts that are trained whole beside the adapters, as `[embed_tokens, lm_head]` where tokens are new."""

    @field_validator("target_modules")
    @classmethod
    def _is_regular(cls, targets: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not targets:
            raise ValueError(f"names no layer; say {ALL_LINEAR} or name some")
        if isinstance(targets, str):
            try:
                re.compile(targets)
            except re.error as error:
                raise ValueError(f"is no regular expression ({error}); give names as a list") from None
        return targets


class TrainingSettings(Config):
    """The part of a training's parameters that does not depend on its loss."""

    learning_rate: float = Field(gt=0, le=1)
    """Peak rate of AdamW."""
    epochs: float = Field(default=1.0, gt=0)
    """Passes over the data; max_steps comes before it."""
    max_steps: int | None = Field(default=None, ge=1)
    """Stop after so many updates, whatever the epochs."""
    batch_size: int = Field(default=32, ge=1)
    """Examples or pairs in an update."""
    micro_batch: int = Field(default=1, ge=1)
    """Of these, so many pass the model at once; must divide batch_size."""
    max_length: int | None = Field(default=None, ge=16)
    """Most tokens of a prompt with its answer; null: the policy's window. No answer is ever cut: see over_window."""
    over_window: OverWindow = "refuse"
    """What does not fit: stop before the first step, or keep the first and last halves of the prompt."""
    scheduler: Literal["constant", "constant_with_warmup", "linear", "cosine"] = "cosine"
    """How the rate falls after the warm-up."""
    warmup: float = Field(default=0.03, ge=0)
    """Share of the steps (below 1) or number of steps until the peak rate."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Of AdamW."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients longer than this are shortened to it."""
    group_by_length: bool = True
    """Texts of like length share a micro batch, over all processes, which saves padding; each epoch still sees each
    text once, and the first micro batch of all holds the longest, so that what does not fit fails at once."""
    gradient_checkpointing: bool = True
    """Less memory for about a fifth more time; long contexts need it, small models do not."""
    bf16: bool | Literal["auto"] = "auto"
    """Compute in bfloat16 (autocast); weights and optimiser keep their type. auto: on a GPU that has it; on a CPU where
    a short measurement of the model shows that it is at least 1.2 times as fast as float32. The log and the figure
    `bf16` tell the choice, and a resumed training keeps it."""
    lora: LoraSettings | None = None
    """null: all weights are trained."""
    seed: int = 0
    """Of the data's order and of new adapters."""
    save_steps: int = Field(default=100, ge=1)
    """A checkpoint after so many updates, from which a killed training goes on."""
    log_steps: int = Field(default=10, ge=1)
    """Figures are reported after so many updates, as means over them."""
    launcher: Literal["none", "accelerate"] = "none"
    """none: one process. accelerate: several, each with a GPU of its own, that share each update's batch_size; needs
    policy.device_map: null."""
    launcher_config: str | None = None
    """How they share the model: fsdp2 (in parts), ddp (each has it whole), or the path of a file that `accelerate
    config` wrote; null: fsdp2."""
    processes: int | None = Field(default=None, ge=1)
    """Of the launcher; micro_batch x processes must divide batch_size. null: as its file says, or one for each GPU."""

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        if self.batch_size % self.micro_batch:
            raise ValueError(f"micro_batch ({self.micro_batch}) must divide batch_size ({self.batch_size})")
        if self.batch_size % (self.micro_batch * (self.processes or 1)):
            raise ValueError(
                f"micro_batch x processes ({self.micro_batch} x {self.processes}) must divide batch_size "
                f"({self.batch_size})"
            )
        return self

    @model_validator(mode="after")
    def _has_a_launcher(self) -> Self:
        for name in ("processes", "launcher_config"):
            if self.launcher == "none" and getattr(self, name) is not None:
                raise ValueError(f"{name} ({getattr(self, name)}) is the launcher's: set launcher to accelerate")
        return self
