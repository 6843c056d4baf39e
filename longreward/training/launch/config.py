"""The file by which `accelerate launch` starts a training's processes, and how many they are; nothing is imported here.

fsdp2, ddp          files of configs/accelerate/, which come with the project
my/cluster.yaml     any file that `accelerate config` wrote, for one machine
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from longreward.config import CONFIGS
from longreward.errors import ConfigError
from longreward.models.config import PolicyConfig
from longreward.training.config import TrainingSettings

DEFAULT = "fsdp2"
NO_CPU = {"FSDP": "FSDP", "DEEPSPEED": "DeepSpeed"}  # accelerate 1.15 passes over them without a word on a CPU


@dataclass(frozen=True)
class LauncherFile:
    """A launcher's file and what was read from it."""

    path: Path
    kind: str
    """FSDP, MULTI_GPU (DDP), DEEPSPEED, …: accelerate's distributed_type."""
    processes: int | None
    """None where the file leaves it open."""


def launcher_file(settings: TrainingSettings) -> LauncherFile:
    """The file that `launcher_config` means; ConfigError where there is none, or where it is not for one machine."""
    name = settings.launcher_config or DEFAULT
    path = Path(name)
    if not path.is_file():
        path = shipped().get(name, path)
    values = _read(path, name)
    if int(values.get("num_machines") or 1) > 1:
        raise ConfigError(f"launcher_config: {path} is for {values['num_machines']} machines; num_machines must be 1")
    if values.get("parallelism_config"):
        raise ConfigError(
            f"launcher_config: {path} has a parallelism_config; context and tensor parallelism are not possible here, "
            "see docs/multi-gpu.md: take it out"
        )
    count = int(values.get("num_processes") or -1)
    return LauncherFile(path, str(values["distributed_type"]), count if count > 0 else None)


def shipped() -> dict[str, Path]:
    """The files that come with the project, by name."""
    return {file.stem: file for file in sorted((CONFIGS / "accelerate").glob("*.yaml"))}


def check_launcher(settings: TrainingSettings, policy: PolicyConfig) -> None:
    """ConfigError where several processes could not even start; without a launcher nothing is looked at."""
    if settings.launcher == "none":
        return
    found = launcher_file(settings)
    if policy.device_map is not None:
        raise ConfigError(
            f"policy.device_map ({policy.device_map}) puts one model over several GPUs within one process, and "
            "launcher: accelerate gives each process a GPU of its own: set one of them to null / none"
        )
    if found.kind == "DEEPSPEED" and find_spec("deepspeed") is None:
        raise ConfigError(
            f"launcher_config: {found.path} asks for DeepSpeed, which is not installed: `pip install deepspeed` (it "
            "compiles for the GPU at hand), or set it to fsdp2"
        )
    if policy.device == "cpu" and found.kind in NO_CPU:
        raise ConfigError(
            f"launcher_config: {found.path} asks for {NO_CPU[found.kind]}, which accelerate offers on GPUs alone; on "
            "CPUs (policy.device: cpu) set it to ddp"
        )


def _read(path: Path, name: str) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"launcher_config: {name} cannot be read ({error}); name one of {', '.join(shipped())}, or the path of a "
            "file that `accelerate config` wrote"
        ) from error
    if not isinstance(values, dict) or not isinstance(values.get("distributed_type"), str):
        raise ConfigError(f"launcher_config: {path} has no distributed_type; write it with `accelerate config`")
    return values
