"""Checks of this machine: Python, packages against the tested ranges, git, GPU, memory, disk."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from longreward.tasks.doctor.finding import Finding, failure, note, ok

LISTED_PACKAGES = ("torch", "transformers", "trl", "prefect", "mlflow", "dvc")
GB = 1e9
MIN_DISK, COMFORTABLE_DISK = 1 * GB, 10 * GB
MIN_MEMORY, COMFORTABLE_MEMORY = 1.5 * GB, 4 * GB  # a stage of the tiny default takes up to 1.2 GB
BF16_COMPUTE_CAPABILITY = 8.0


def check_installation() -> Iterator[Finding]:
    """Check Python, packages and git."""
    yield ok("python", f"{'.'.join(map(str, sys.version_info[:3]))} at {sys.executable}")
    on_path = shutil.which("python")
    if on_path is None or Path(on_path).parent.resolve() != Path(sys.executable).parent.resolve():
        activate = Path(sys.executable).with_name("activate")
        advice = f"`. {activate}`" if activate.exists() else f"put {activate.parent} first on PATH"
        message = f"`python` on PATH is {on_path or 'missing'}, not this Python, and `dvc repro` calls it"
        yield note("path", message, f"{advice} before `dvc repro`; `longreward run` works without")
    yield from _check_packages()
    if shutil.which("git"):
        output = subprocess.run(["git", "--version"], capture_output=True, text=True, check=False).stdout
        yield ok("git", output.strip().removeprefix("git version ") or "installed")
    else:
        yield failure("git", "not found on PATH, and DVC needs it", "install git")


def check_machine(folders: list[Path]) -> Iterator[Finding]:
    """Check the GPUs, the memory, and the disks of the folders, which need not exist."""
    yield from check_gpus()
    memory = psutil.virtual_memory()
    message = f"{memory.available / GB:.1f} of {memory.total / GB:.1f} GB free"
    if memory.available < MIN_MEMORY:
        yield failure("memory", message, "close other programs: even the tiny default needs more")
    elif memory.available < COMFORTABLE_MEMORY:
        yield note("memory", message, "enough for the tiny default; larger models are loaded through memory")
    else:
        yield ok("memory", message)
    yield from _check_disks(folders)


def _check_packages() -> Iterator[Finding]:
    try:
        requirements = [Requirement(line) for line in requires("longreward") or ()]
    except PackageNotFoundError:
        yield failure("packages", "longreward is imported without being installed", "`pip install` it")
        return
    required = [item for item in requirements if item.marker is None or item.marker.evaluate({"extra": ""})]
    valid = True
    for item in required:
        try:
            installed = version(item.name)
            problem = f"{item.name} {installed} is outside the tested range {item.specifier}"
            if item.specifier.contains(installed, prereleases=True):
                continue
        except PackageNotFoundError:
            problem = f"{item.name} is not installed"
        yield failure("packages", problem, f"`{sys.executable} -m pip install '{item.name}{item.specifier}'`")
        valid = False
    if valid:
        versions = ", ".join(f"{name} {version(name)}" for name in LISTED_PACKAGES)
        yield ok("packages", f"all {len(required)} are within the tested ranges: {versions}")


def check_gpus() -> Iterator[Finding]:
    """Check what the driver reports, and whether torch can use it; torch, slow to import, only if there is a GPU."""
    gpus = _query_driver()
    if not gpus:
        yield ok("gpu", "none: enough for the tiny default; models of billions of parameters need one, or a server")
        return
    for name, memory_mb, free_mb, capability in gpus:
        message = f"{name}, {free_mb / 1024:.0f} of {memory_mb / 1024:.0f} GiB free"
        if capability < BF16_COMPUTE_CAPABILITY:
            yield note("gpu", f"{message}, no bfloat16", "set policy.dtype to float32; `bf16: auto` turns it off")
        elif free_mb < memory_mb / 2:
            yield note("gpu", f"{message}, bfloat16", "`nvidia-smi` shows which processes use it")
        else:
            yield ok("gpu", f"{message}, bfloat16")
    yield from _check_torch(len(gpus))


def _query_driver() -> list[tuple[str, float, float, float]]:
    """Return name, total and free memory in MiB, and compute capability of each GPU."""
    if not shutil.which("nvidia-smi"):
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total,memory.free,compute_cap", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout
    except (subprocess.SubprocessError, OSError):
        return []
    rows = [line.rsplit(",", 3) for line in output.splitlines() if line.count(",") >= 3]
    return [(name.strip(), _float(total), _float(free), _float(capability)) for name, total, free, capability in rows]


def _float(text: str) -> float:
    """Parse a number; 0 for `[N/A]`."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def _check_torch(gpus: int) -> Iterator[Finding]:
    try:
        if version("torch").endswith("+cpu"):
            advice = "`pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu128`"
            yield note("gpu", f"torch {version('torch')} is a CPU build and will not use it", advice)
            return
        import torch
    except (PackageNotFoundError, ImportError):
        return  # reported with the packages
    if not torch.cuda.is_available():
        advice = "is the driver too old (`nvidia-smi`), or CUDA_VISIBLE_DEVICES empty?"
        yield note("gpu", f"torch {torch.__version__} does not find it", advice)
    elif torch.cuda.device_count() != gpus:
        yield ok("gpu", f"torch uses {torch.cuda.device_count()} of {gpus}")


def _check_disks(folders: list[Path]) -> Iterator[Finding]:
    devices = set()
    for folder in folders:
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        if (device := existing.stat().st_dev) in devices:
            continue
        devices.add(device)
        free = shutil.disk_usage(existing).free
        message = f"{free / GB:.1f} GB free for {existing}"
        if free < MIN_DISK:
            yield failure("disk", message, "free some: `dvc gc --workspace` removes data that no current file needs")
        elif free < COMFORTABLE_DISK:
            advice = "a training needs about ten times its model's size: checkpoints, outputs, the cache"
            yield note("disk", message, advice)
        else:
            yield ok("disk", message)
