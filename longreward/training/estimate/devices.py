"""The device that a training is predicted for: this machine's, or one that is only named.

here(policy)              this machine's first GPU, or its CPU with the memory that the container may use
parse_device("H100")      a card of the table; "cuda:80GB", "cpu:64GB", "A100:40GB" say their memory
"""

import re
from dataclasses import dataclass
from pathlib import Path

from longreward.errors import ConfigError
from longreward.models.config import PolicyConfig

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
