"""Peak memory of a training step by a formula, from the model's config and the lengths of the data.

    weights + gradients + AdamW's two moments + activations + LM head + libraries

Weights, gradients and optimizer states are counted exactly, on a model without storage (torch's meta device).
Activations and the LM head are approximations; see the constants. The formula is for planning without the device at
hand (`longreward preflight`); a training on a GPU measures its peak (micro_batch.py).
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longreward.errors import ConfigError, PolicyError
from longreward.models.compatibility import load_errors
from longreward.models.config import PolicyConfig
from longreward.models.model_ref import pretrained_kwargs
from longreward.training.config import LoraSettings
from longreward.training.lora import build_lora_config, ignore_checkpointing_warnings

GB = 1e9

# Values that one transformer layer saves per token for its backward pass: 9 x hidden + 4 x intermediate. Fitted to
# traces of Llama 8B, Qwen2 7B and a Llama of 21M parameters (within 5 % in float32); compare Korthikanti et al.
# (2022), section 4.1, for GPT with another MLP.
HIDDEN_VALUES, INTERMEDIATE_VALUES = 9, 4
NORM_VALUES = 3  # x hidden, which norms keep in float32 although the layer computes in 16 bits
BACKWARD_VALUES = 2  # x intermediate, float32 gradients inside the layer whose backward pass runs

# TRL 1.16 computes log-probabilities in tiles of tokens x vocabulary entries. Without a Triton kernel, as on a CPU,
# the backward pass makes about seven float32 copies of a tile.
TILE_TOKENS, TILE_WORDS = 4096, 32_768
CPU_TILE_COPIES = 7
LIBRARIES = 0.8 * GB  # Python, torch, transformers, TRL; about as much again as a CUDA context with its kernels


@dataclass(frozen=True)
class Device:
    """A device to train on; `memory` in bytes."""

    name: str
    cuda: bool
    memory: float


def local_device(policy: PolicyConfig) -> Device:
    """Return the device that `policy.device` selects; with a device map, all GPUs together."""
    import torch

    if policy.device == "cpu" or not torch.cuda.is_available():
        import psutil

        total = float(psutil.virtual_memory().total)
        # A container may have less (cgroup v2); the file is missing or holds "max" where there is no limit.
        with suppress(OSError, ValueError):
            total = min(total, float(Path("/sys/fs/cgroup/memory.max").read_text()))
        return Device("cpu", cuda=False, memory=total)
    count = torch.cuda.device_count() if policy.device_map is not None else 1
    memory = sum(torch.cuda.get_device_properties(index).total_memory for index in range(count))
    name = torch.cuda.get_device_name(0)
    return Device(name if count == 1 else f"{count} x {name}", cuda=True, memory=float(memory))


def parse_device(text: str) -> Device:
    """Parse `cuda:80GB` or `cpu:64GB`; ConfigError otherwise."""
    match = re.fullmatch(r"(cpu|cuda):([0-9]+(?:\.[0-9]+)?)GB", text)
    if match is None:
        raise ConfigError(f"--device {text}: give the memory of one device, as cuda:80GB or cpu:64GB")
    return Device(text, cuda=match[1] == "cuda", memory=float(match[2]) * GB)


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model that determine its memory in training."""

    parameters: int
    trainable: int
    weight_bytes: int
    trainable_bytes: int
    layers: int
    hidden: int
    intermediate: int


def build_meta_model(policy: PolicyConfig, path: str, *, lora: LoraSettings | None) -> Any:
    """Build the model at `path` on the meta device, in the dtype that a training would load it in; reads no weights.

    PolicyError where there is no such model.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with load_errors("config", path, policy):
        config = AutoConfig.from_pretrained(**pretrained_kwargs(policy, path))
    # Trained weights are float32 unless the user says otherwise, frozen ones stay as saved (see policy.load_policy).
    saved = str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    dtype = policy.dtype if policy.dtype != "auto" else saved if lora is not None else "float32"
    with torch.device("meta"), load_errors("model", path, policy):
        return AutoModelForCausalLM.from_config(
            config,
            dtype=getattr(torch, dtype),
            # flash-attn need not be installed where an estimate is made
            attn_implementation="sdpa" if policy.attention == "flash_attention_2" else policy.attention,
            trust_remote_code=policy.trust_remote_code,
        )


def measure_shape(model: Any, lora: LoraSettings | None) -> ModelShape:
    """Count a meta model's weights, with its adapter; PolicyError where the adapter does not fit the model."""
    config = model.config.get_text_config()
    if (lora_config := build_lora_config(lora, model)) is not None:
        from peft import get_peft_model

        with ignore_checkpointing_warnings():
            model = get_peft_model(model, lora_config)
    weights = list(model.parameters())
    trained = [weight for weight in weights if weight.requires_grad]
    intermediate = getattr(config, "intermediate_size", None) or 4 * config.hidden_size  # GPT-2 has no such entry
    return ModelShape(
        parameters=sum(weight.numel() for weight in weights),
        trainable=sum(weight.numel() for weight in trained),
        weight_bytes=sum(weight.nbytes for weight in weights),
        trainable_bytes=sum(weight.nbytes for weight in trained),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=intermediate * (getattr(config, "num_experts_per_tok", None) or 1),
    )


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on each device by term; the first three are exact, the others approximate."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    lm_head: float
    libraries: float = LIBRARIES

    @property
    def fixed(self) -> float:
        """What is needed whatever the batch."""
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> float:
        """The estimated peak."""
        return self.fixed + self.activations + self.lm_head + self.libraries


def estimate_memory(
    shape: ModelShape, *, tokens: int, scored: int, bf16: bool, cuda: bool, checkpointing: bool, shards: int = 1
) -> MemoryEstimate:
    """Estimate a step whose micro batch has `tokens` tokens, padding included, of which the LM head scores `scored`.

    `shards`: the number of processes among which FSDP divides weights, gradients and optimizer states.
    """
    weight_size = shape.weight_bytes / shape.parameters
    size = 2 if bf16 else weight_size
    layer = size * (HIDDEN_VALUES * shape.hidden + INTERMEDIATE_VALUES * shape.intermediate)
    if size < 4:
        layer += 4 * NORM_VALUES * shape.hidden
    # With checkpointing each layer keeps its input only, and one layer at a time is computed again.
    saved = shape.layers * weight_size * shape.hidden + layer if checkpointing else shape.layers * layer
    backward = 4 * BACKWARD_VALUES * shape.intermediate
    tile = min(scored, TILE_TOKENS) * TILE_WORDS * (size if cuda else size + 4 * CPU_TILE_COPIES)
    # The backward pass of the LM head ends before that of the layers begins, so that only the larger one counts.
    lm_head = max(0.0, tile - tokens * backward)
    return MemoryEstimate(
        weights=shape.weight_bytes / shards,
        gradients=shape.trainable_bytes / shards,
        optimizer=2 * shape.trainable_bytes / shards,
        activations=tokens * (saved + backward),
        lm_head=lm_head,
    )


def check_fits(shape: ModelShape, memory: MemoryEstimate, device: Device) -> None:
    """PolicyError where weights, gradients and optimizer states alone are more than the device has."""
    if memory.fixed <= device.memory:
        return
    unsharded = shape.weight_bytes + 3 * shape.trainable_bytes
    devices = int(unsharded // device.memory) + 1
    advice = [f"launcher: accelerate with at least {devices} such devices (fsdp2)"]
    if shape.trainable == shape.parameters:
        advice.append(f"lora: {{r: 16}} with policy.dtype: bfloat16, about {format_gb(2 * shape.parameters)}")
    raise PolicyError(
        f"this training cannot fit: weights, gradients and AdamW take {format_gb(memory.fixed)}, and {device.name} has "
        f"{format_gb(device.memory)}. It needs less with\n  " + "\n  ".join(advice)
    )


def format_gb(size: float) -> str:
    """Format bytes as GB."""
    return f"{size / GB:,.1f} GB"
