"""The device that a training is predicted for: this machine's, or one that is only named.

here(policy)              this machine's first GPU, or its CPU with the memory that the container may use
parse_device("H100")      a card of the table; "cuda:80GB", "cpu:64GB", "A100:40GB" say their memory
"""

import re
from dataclasses import dataclass
from pathlib import Path

from longreward.errors import ConfigError
from longreward.models.config import PolicyConfig
from longreward.training.estimate.meta_step import MemoryTrace

GB = 1e9


@dataclass(frozen=True)
class Device:
    """Bytes of memory, in all and free now."""

    name: str
    cuda: bool
    total: float
    free: float


def local_device(policy: PolicyConfig) -> Device:
    """What `policy.device` would take; with a device map, all GPUs together."""
    import torch

    if policy.device == "cpu" or not torch.cuda.is_available():
        total, free = _system_memory()
        return Device("cpu", cuda=False, total=total, free=free)
    count = torch.cuda.device_count() if policy.device_map is not None else 1
    sizes = [torch.cuda.mem_get_info(number) for number in range(count)]
    name = torch.cuda.get_device_name(0)
    label = name if count == 1 else f"{count} x {name}"
    return Device(label, True, float(sum(s[1] for s in sizes)), float(sum(s[0] for s in sizes)))


def parse_device(text: str) -> Device:
    """ConfigError where it is no `NAME`, `NAME:80GB` of a kind that is known."""
    found = re.fullmatch(r"([^:]+)(?::\s*+([0-9.]+)\s*+(GB|GiB)?)?", text.strip())
    name = found[1].strip() if found else ""
    card = next((row for row in CARDS if row[0].casefold() == name.casefold()), None)
    if found is None or (card is None and name.casefold() not in ("cpu", "cuda")):
        raise ConfigError(f"--device {text}: give cpu:SIZE, cuda:SIZE (as cuda:80GB) or one of {_known()}")
    size = float(found[2]) * (2**30 if found[3] == "GiB" else GB) if found[2] else card[1] * GB if card else None
    if not size:
        raise ConfigError(f"--device {text}: how much memory has it? say {name}:80GB")
    return Device(text, name.casefold() != "cpu", size, size)


def _system_memory() -> tuple[float, float]:
    """(total, free) bytes, a container's limit included."""
    import psutil

    memory = psutil.virtual_memory()
    total, free = float(memory.total), float(memory.available)
    for limit, use in CGROUPS:
        try:
            most = int(limit.read_text())
            used = sum(int(line.split()[1]) for line in use.read_text().splitlines() if line.split()[0] in OWN_PAGES)
        except (OSError, ValueError):  # no such group, or "max"
            continue
        if most < total:
            total, free = float(most), min(free, float(most - used))
    return total, free


def _known() -> str:
    return ", ".join(row[0] for row in CARDS)


CARDS = (  # name, GB: the makers' data sheets
    ("B200", 180),
    ("H200", 141),
    ("H100", 80),
    ("H800", 80),
    ("A100", 80),
    ("A800", 80),
    ("L40S", 48),
    ("A6000", 48),
    ("A10", 24),
    ("L4", 24),
    ("RTX 5090", 32),
    ("RTX 4090", 24),
    ("RTX 3090", 24),
)
CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.stat")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.stat")),
)
OWN_PAGES = ("anon", "total_rss")  # what cannot be given back: files that were read can


# What a training step needs at its peak, as a sum of terms that a user can check.
#
#     weights + gradients + AdamW's two moments + what the forward pass keeps + the larger of
#     (a layer's backward pass, the LM head's) + what the libraries take
#
# Weights, gradients and moments are counted from the model's config; what passes keep is rehearsed (rehearsing.py). The
# LM head follows TRL 1.16, which scores tiles of TILE_TOKENS x TILE_WORDS.


TILE_TOKENS, TILE_WORDS = 4096, 32_768
FLOAT_TILES = 7  # copies in float32 that the backward pass makes of a tile where there is no Triton
CPU_LIBRARIES = 0.8e9  # Python, torch, transformers, datasets and TRL: 0.6 to 0.8 GB seen
CUDA_LIBRARIES = 0.8e9  # context, kernels, cuBLAS
FRAGMENTS = 0.05  # of what torch's GPU allocator holds, assumed


@dataclass(frozen=True)
class Term:
    """A summand; `certain` counts what is needed whatever torch does, at most `bytes`."""

    name: str
    formula: str
    bytes: float
    certain: float = 0.0


@dataclass(frozen=True)
class Memory:
    """A step's peak on each device."""

    terms: tuple[Term, ...]

    @property
    def total(self) -> float:
        """The prediction."""
        return sum(term.bytes for term in self.terms)

    @property
    def certain(self) -> float:
        """Below it, no training."""
        return sum(term.certain for term in self.terms)

    @property
    def offloaded(self) -> float:
        """What stays on the device where weights, gradients and moments lie in the machine's memory."""
        return self.total - sum(term.bytes for term in self.terms if term.name in HELD)


def step_memory(step: MemoryTrace, *, scored: int, bf16: bool, cuda: bool, processes: int = 1) -> Memory:
    """Of a training step whose LM head scores `scored` positions; `processes` share what FSDP shards."""
    parts = step.parts
    shared = f" / {processes} processes" if processes > 1 else ""
    held = [
        _held("weights", f"{parts.parameters:,} parameters{shared}", parts.weight_bytes / processes),
        _held("gradients", f"{parts.trainable:,} trainable parameters{shared}", parts.trainable_bytes / processes),
        _held("AdamW", f"2 moments of {parts.trainable:,} parameters{shared}", 2 * parts.trainable_bytes / processes),
    ]
    if processes > 1:
        gathered = 2 * parts.weight_bytes / parts.layers
        held.append(Term("gathered layers", "2 layers' weights, whole while they compute", gathered))
    terms = [*held, *_passes(step, scored=scored, bf16=bf16, cuda=cuda)]
    return Memory((*terms, _libraries(terms, cuda=cuda)))


def reference_memory(reference: MemoryTrace, *, scored: int, bf16: bool, cuda: bool) -> Memory:
    """Of the reference's pass, before the first step: no gradients, no optimiser."""
    parts = reference.parts
    frozen = parts.weight_bytes - parts.trainable_bytes if parts.trainable < parts.parameters else parts.weight_bytes
    terms = [
        _held("weights", f"{parts.parameters:,} parameters", frozen),
        Term("reference pass", "the largest moment of a forward pass", float(reference.peak or 0)),
        Term("LM head", f"{scored:,} positions", _head(reference, scored, bf16=bf16, cuda=cuda, backward=False)),
    ]
    return Memory((*terms, _libraries(terms, cuda=cuda)))


def _held(name: str, formula: str, size: float) -> Term:
    return Term(name, formula, size, certain=size)


def _passes(step: MemoryTrace, *, scored: int, bf16: bool, cuda: bool) -> list[Term]:
    head = _head(step, scored, bf16=bf16, cuda=cuda, backward=True)
    of_head = Term("LM head", f"{scored:,} positions in tiles of {TILE_TOKENS:,} x {TILE_WORDS:,}", head)
    if step.kept is None or step.peak is None:
        return [Term("activations", f"not counted for this model ({step.why})", 0.0), of_head]
    busiest = step.peak - step.kept
    kept = Term(
        "kept activations",
        f"what {step.parts.layers} layers keep for the backward pass",
        step.kept,
        certain=step.kept / step.parts.layers,
    )
    if busiest >= head:
        return [kept, Term("a layer's backward pass", "more than the LM head's, which comes before it", busiest)]
    return [kept, of_head]


def _head(step: MemoryTrace, scored: int, *, bf16: bool, cuda: bool, backward: bool) -> float:
    """TRL's chunked log-probabilities: a tile of logits, float copies of it off CUDA, gradients in float32."""
    parts = step.parts
    rows = min(scored, TILE_TOKENS)
    size = 2 if bf16 else 4
    tile = rows * TILE_WORDS * size
    copies = 0 if cuda else rows * min(parts.vocabulary, TILE_WORDS) * 4 * FLOAT_TILES
    hidden = scored * parts.hidden * (size + 4 * backward)
    trains_head = backward and parts.trainable == parts.parameters
    return tile + copies + hidden + (4 * parts.head if trains_head else 0)


def _libraries(terms: list[Term], *, cuda: bool) -> Term:
    if not cuda:
        return Term("libraries", "Python, torch, TRL", CPU_LIBRARIES)
    fragments = FRAGMENTS * sum(term.bytes for term in terms)
    return Term("libraries", f"CUDA, and {FRAGMENTS:.0%} lost between blocks", CUDA_LIBRARIES + fragments)


HELD = ("weights", "gradients", "AdamW")
