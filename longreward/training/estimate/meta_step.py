"""A step rehearsed on tensors without numbers: how many bytes would be alive, for any model, long before its weights.

    blueprint = read_blueprint(policy_config, "org/name", settings)                     # the config alone
    rehearse(blueprint, Batch(rows=2, tokens=65_536)).peak                              # 106_031_000_000

The model is made from its config, and its tensors have shapes and types, but no memory (torch's FakeTensorMode), so
that a step of 8B parameters on 64k tokens takes seconds. Autograd, autocast, checkpointing, adapters and prefix sharing
are the real ones. Not in it: the LM head (memory.py) and what kernels take for themselves.
"""

import logging
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from longreward.models.compatibility import load_errors
from longreward.models.config import PolicyConfig
from longreward.models.model_ref import pretrained_kwargs
from longreward.training.config import LoraSettings, TrainingSettings
from longreward.training.lora import build_lora_config

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ModelSpec:
    """A model that could be built, and how it would be trained."""

    config: Any  # the model's own
    dtype: str  # of the weights
    attention: str
    trust_remote_code: bool
    bf16: bool  # autocast
    checkpointing: bool
    lora: LoraSettings | None


@dataclass(frozen=True)
class Batch:
    """What passes the model at once: so many rows of so many tokens, padding included."""

    rows: int
    tokens: int
    pairs: tuple[tuple[int, int, int], ...] = ()  # prompt, chosen, rejected of each row where prompts are shared


@dataclass(frozen=True)
class Parts:
    """What the model holds; counts are parameters."""

    parameters: int
    head: int
    trainable: int
    weight_bytes: int
    trainable_bytes: int
    layers: int
    hidden: int
    vocabulary: int


@dataclass(frozen=True)
class MemoryTrace:
    """Bytes above weights and gradients; None where torch cannot rehearse this model (`why`)."""

    parts: Parts
    kept: int | None  # what the forward pass leaves for the backward one
    peak: int | None  # at the busiest moment of both
    why: str = ""


def read_blueprint(policy: PolicyConfig, path: str, settings: TrainingSettings) -> ModelSpec:
    """The model at `path` as a training would load it; PolicyError where there is none. Reads no weights."""
    from transformers import AutoConfig

    with load_errors("config", path, policy):
        config = AutoConfig.from_pretrained(**pretrained_kwargs(policy, path))
    saved = str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    kept = saved if settings.lora is not None else "float32"
    return ModelSpec(
        config=config,
        dtype=kept if policy.dtype == "auto" else policy.dtype,
        attention="sdpa" if policy.attention == "flash_attention_2" else policy.attention,
        trust_remote_code=policy.trust_remote_code,
        bf16=settings.bf16 is True,
        checkpointing=settings.gradient_checkpointing,
        lora=settings.lora,
    )


def trace_meta_step(plan: ModelSpec, batch: Batch, *, gradients: bool = True) -> MemoryTrace:
    """Runs `batch` forward and, with `gradients`, backward. PolicyError for an adapter that does not fit the model."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    with _quiet(), torch.device("meta"), load_errors("model", plan.config.name_or_path, PolicyConfig(base_model="")):
        bare, model = _build(plan, share=bool(batch.pairs))
    parts = _parts(bare, model)
    try:
        with _quiet(), FakeTensorMode():
            _give_shapes(model)
            kept, peak = _run(plan, bare, model, batch, gradients=gradients)
    except Exception as error:  # a model's own code on tensors without numbers may raise anything
        lines = str(error).splitlines()
        return MemoryTrace(parts, None, None, f"{type(error).__name__}: {lines[0] if lines else ''}")
    return MemoryTrace(parts, kept, peak)


def reason_against_sharing(plan: ModelSpec, *, longest: int) -> str | None:
    """Why pairs cannot share their prompts, as far as it can be told without weights."""
    import torch

    from longreward.training.prefix.support import unsupported_config_reason

    with torch.device("meta"):
        return unsupported_config_reason(_build(replace(plan, lora=None), share=False)[0], longest=longest)


def _build(plan: ModelSpec, *, share: bool) -> tuple[Any, Any]:
    """The model bare and with its adapter, which is the same object where there is none."""
    import torch
    from transformers import AutoModelForCausalLM

    bare = AutoModelForCausalLM.from_config(
        deepcopy(plan.config),
        dtype=getattr(torch, plan.dtype),
        attn_implementation=_without_mask() if plan.attention == "sdpa" else plan.attention,
        trust_remote_code=plan.trust_remote_code,
    )
    if share:
        from longreward.training.prefix.sharing import share_prefix

        share_prefix(bare)
    if (lora := build_lora_config(plan.lora, bare)) is None:
        return bare, bare
    from peft import get_peft_model

    return bare, get_peft_model(bare, lora)


def _without_mask() -> str:
    """The name of an attention that allots what sdpa does in a training.

    For sdpa itself transformers would make a mask of length x length, which it does wherever a model is only traced;
    and torch cannot rehearse the bias by which shared prefixes do without one.
    """
    from torch.nn.functional import scaled_dot_product_attention
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

    from longreward.training.prefix.attention import CAUSAL

    def causal(
        module: Any, query: Any, key: Any, value: Any, *, scaling: float | None, dropout: float, **_: Any
    ) -> Any:  # a score cap or sinks (softcap, s_aux) add nothing to the memory
        groups = getattr(module, "num_key_value_groups", 1)
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
        return scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=scaling).transpose(1, 2)

    AttentionInterface.register("rehearsed", sdpa_attention_forward)
    CAUSAL["rehearsed"] = causal
    return "rehearsed"


def _parts(bare: Any, model: Any) -> Parts:
    config = bare.config.get_text_config()
    head = bare.get_output_embeddings()
    weights = list(model.named_parameters())
    trained = [weight for _, weight in weights if weight.requires_grad]
    return Parts(
        parameters=sum(weight.numel() for _, weight in weights),
        head=head.weight.numel(),
        trainable=sum(weight.numel() for weight in trained),
        weight_bytes=sum(weight.nbytes for _, weight in weights),
        trainable_bytes=sum(weight.nbytes for weight in trained),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        vocabulary=head.weight.shape[0],
    )


def _give_shapes(model: Any) -> None:
    """Puts tensors of the current FakeTensorMode, on a CPU, in the place of those on the meta device."""
    import torch

    fakes: dict[int, Any] = {}
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None and id(weight) not in fakes:  # tied weights stay tied
                fake = torch.nn.Parameter(torch.empty(weight.shape, dtype=weight.dtype), weight.requires_grad)
                fake.grad = torch.empty_like(fake) if weight.requires_grad else None
                fakes[id(weight)] = fake
            module._parameters[name] = None if weight is None else fakes[id(weight)]
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else torch.empty(buffer.shape, dtype=buffer.dtype)


def _run(plan: ModelSpec, bare: Any, model: Any, batch: Batch, *, gradients: bool) -> tuple[int, int]:
    import torch

    if plan.checkpointing and gradients:
        bare.gradient_checkpointing_enable({"use_reentrant": False})
        if plan.lora is not None:
            bare.enable_input_require_grads()
    model.train()
    ids = torch.zeros(batch.rows, batch.tokens, dtype=torch.long)
    named: dict[str, Any] = {"input_ids": ids, "use_cache": False}
    if batch.pairs:
        named["packed_pairs"] = {"input_ids": ids, "lengths": batch.pairs}
    with _alive_bytes(model) as alive, torch.set_grad_enabled(gradients):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=plan.bf16):
            hidden = bare.base_model(**named).last_hidden_state
        kept = alive.now
        if gradients:
            hidden.backward(torch.ones_like(hidden))
    return kept, alive.peak


@contextmanager
def _alive_bytes(model: Any) -> Iterator[Any]:
    """Counts the bytes of every tensor that is made inside, until it is gone; not the model's own."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.now = self.peak = 0
            self.sizes: dict[int, int] = {}
            for weight in model.parameters():
                for own in (weight, weight.grad):
                    if own is not None:
                        self.sizes[own.untyped_storage()._cdata] = 0
            for buffer in model.buffers():
                self.sizes[buffer.untyped_storage()._cdata] = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = func(*args, **(kwargs or {}))
            for leaf in tree_leaves(made):
                if hasattr(leaf, "untyped_storage"):
                    self.meet(leaf)
            return made

        def meet(self, tensor: "torch.Tensor") -> None:
            storage = tensor.untyped_storage()
            if storage._cdata not in self.sizes:
                self.sizes[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.part, storage._cdata)

        def part(self, key: int) -> None:
            self.now -= self.sizes.pop(key)

    with Alive() as alive:
        yield alive


@contextmanager
def _quiet() -> Iterator[None]:
    """What torch says of an operation that it cannot rehearse stands in `why`."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        log.setLevel(level)
