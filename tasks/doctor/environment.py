"""Python, the packages that this project stands on against the ranges that it was tested with, git."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from longreward.tasks.doctor.finding import Finding, bad, good, note

NAMED = ("torch", "transformers", "trl", "prefect", "mlflow", "dvc")


def check_installed() -> Iterator[Finding]:
    """Python, packages, git."""
    yield good("python", f"{'.'.join(map(str, sys.version_info[:3]))} at {sys.executable}")
    yield from _path()
    yield from _packages()
    yield _git()


def _path() -> Iterator[Finding]:
    found = shutil.which("python")
    if found is None or Path(found).parent.resolve() != Path(sys.executable).parent.resolve():
        activate = Path(sys.executable).with_name("activate")
        how = f"`. {activate}`" if activate.exists() else f"put {activate.parent} first on PATH"
        said = f"`python` on PATH is {found or 'nothing'}, not this Python, and `dvc repro` calls it"
        yield note("path", said, f"{how} before `dvc repro`; `longreward run` does without")


def _packages() -> Iterator[Finding]:
    try:
        wanted = [Requirement(line) for line in requires("longreward") or ()]
    except PackageNotFoundError:
        yield bad("packages", "longreward is not installed, only imported", "`pip install` it")
        return
    needed = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    wrong = list(filter(None, map(_out_of_range, needed)))
    yield from wrong
    if not wrong:
        versions = ", ".join(f"{name} {version(name)}" for name in NAMED)
        yield good("packages", f"all {len(needed)} are within the tested ranges: {versions}")


def _out_of_range(wanted: Requirement) -> Finding | None:
    install = f"`{sys.executable} -m pip install '{wanted.name}{wanted.specifier}'`"
    try:
        found = version(wanted.name)
    except PackageNotFoundError:
        return bad("packages", f"{wanted.name} is not installed", install)
    if wanted.specifier.contains(found, prereleases=True):
        return None
    return bad("packages", f"{wanted.name} {found} lies outside the tested range {wanted.specifier}", install)


def _git() -> Finding:
    if not shutil.which("git"):
        return bad("git", "not found on PATH, and DVC needs it", "install git")
    said = subprocess.run(["git", "--version"], capture_output=True, text=True, check=False, env={**os.environ})
    return good("git", said.stdout.strip().removeprefix("git version ") or "installed")


# What this machine has: GPU, memory, disk.


GB = 1e9
LEAST_DISK, EASY_DISK = 1 * GB, 10 * GB
LEAST_MEMORY, EASY_MEMORY = 1.5 * GB, 4 * GB  # a stage on the tiny default takes up to 1.2 GB
BF16_SINCE = 8.0  # compute capability


def check_machine(folders: list[Path]) -> Iterator[Finding]:
    """The GPU, the memory, and the disks of the folders, which need not exist."""
    yield from check_gpu()
    yield _memory()
    yield from _disks(folders)


def check_gpu() -> Iterator[Finding]:
    """What the driver shows, and whether torch can use it. Torch, slow to import, is asked only where there is one."""
    rows = _driver_shows()
    if not rows:
        yield good("gpu", "none: fine for the tiny default; a model of billions of parameters needs one, or a server")
        return
    for name, memory_mb, free_mb, capability in rows:
        said = f"{name}, {free_mb / 1024:.0f} of {memory_mb / 1024:.0f} GiB free"
        if capability < BF16_SINCE:
            yield note("gpu", f"{said}, without bfloat16", "set policy.dtype to float32; bf16: auto leaves it out")
        elif free_mb < memory_mb / 2:
            yield note("gpu", f"{said}, bfloat16", "`nvidia-smi` shows who uses it")
        else:
            yield good("gpu", f"{said}, bfloat16")
    yield from _torch(len(rows))


def _driver_shows() -> list[tuple[str, float, float, float]]:
    if not shutil.which("nvidia-smi"):
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total,memory.free,compute_cap", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout
    except (subprocess.SubprocessError, OSError):
        return []
    rows = [[word.strip() for word in line.rsplit(",", 3)] for line in said.splitlines() if line.count(",") >= 3]
    return [(name, _number(total), _number(free), _number(capability)) for name, total, free, capability in rows]


def _number(text: str) -> float:
    """0 for the `[N/A]` of a device that does not say."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def _torch(devices: int) -> Iterator[Finding]:
    try:
        if version("torch").endswith("+cpu"):
            todo = "`pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu128`"
            yield note("gpu", f"torch {version('torch')} is built for the CPU alone and will not use it", todo)
            return
        import torch
    except (PackageNotFoundError, ImportError):
        return  # told with the packages
    if not torch.cuda.is_available():
        todo = "is the driver too old for it (`nvidia-smi`), or CUDA_VISIBLE_DEVICES empty?"
        yield note("gpu", f"torch {torch.__version__} does not see it", todo)
    elif torch.cuda.device_count() != devices:
        yield good("gpu", f"torch uses {torch.cuda.device_count()} of {devices}")


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    said = f"{memory.available / GB:.1f} of {memory.total / GB:.1f} GB free"
    if memory.available < LEAST_MEMORY:
        return bad("memory", said, "end other programs: even the tiny default takes more")
    if memory.available < EASY_MEMORY:
        return note("memory", said, "enough for the tiny default; a larger model also passes through memory")
    return good("memory", said)


def _disks(folders: list[Path]) -> Iterator[Finding]:
    seen = set()
    for folder in folders:
        place = next(place for place in (folder, *folder.parents) if place.exists())
        if (device := place.stat().st_dev) in seen:
            continue
        seen.add(device)
        free = shutil.disk_usage(place).free
        said = f"{free / GB:.1f} GB free for {place}"
        if free < LEAST_DISK:
            yield bad("disk", said, "make room: `dvc gc --workspace` drops data that no current file needs")
        elif free < EASY_DISK:
            yield note(
                "disk", said, "a training keeps about ten times its model's size: checkpoints, outputs, the cache"
            )
        else:
            yield good("disk", said)
