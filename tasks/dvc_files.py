"""Read DVC's files: stages, their inputs and outputs, and the hashes of data.

A stage's own process uses these functions and never calls DVC, which holds its lock meanwhile.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from longreward.errors import ConfigError

if TYPE_CHECKING:  # `longreward run` names unknown stages before pydantic is imported
    from longreward.config import Config
    from longreward.params import Params

RAW = Path("data/raw")
RAW_ENTRY = Path("data/raw.dvc")


@dataclass(frozen=True)
class StageEntry:
    """A stage of `dvc.yaml`."""

    name: str
    command: str
    inputs: tuple[Path, ...]
    sections: tuple[str, ...]
    """Of params.yaml."""
    outputs: tuple[Path, ...]


def stage_entries(path: Path = Path("dvc.yaml")) -> dict[str, StageEntry]:
    """Return the stages in the file's order, which is the order in which they run."""
    if not path.exists():
        raise ConfigError(f"{path} is not here; run this in the project's folder")
    stages = _read_yaml(path).get("stages")
    if not isinstance(stages, dict):
        raise ConfigError(f"{path} has no stages; is this the project's folder?")
    entries = {}
    for name, stage in stages.items():
        outputs = [output for kind in ("outs", "metrics", "plots") for output in stage.get(kind, ())]
        entries[name] = StageEntry(
            name=name,
            command=str(stage.get("cmd", "")),
            inputs=tuple(Path(dependency) for dependency in stage.get("deps", ())),
            sections=tuple(param.partition(".")[0] for param in stage.get("params", ())),
            # An output with options is a mapping of one key, its path.
            outputs=tuple(Path(output if isinstance(output, str) else next(iter(output))) for output in outputs),
        )
    return entries


def check_inputs(stages: Sequence[str]) -> None:
    """Raise ConfigError if one of these stages needs a missing output of a stage that is not among them."""
    entries = stage_entries()
    producers = {output: name for name, entry in entries.items() for output in entry.outputs}
    required, problem = set(stages), ""
    for name in reversed(entries):  # a stage's inputs come from stages before it
        for path in entries[name].inputs if name in required else ():
            producer = next((producers[parent] for parent in (path, *path.parents) if parent in producers), None)
            if producer is not None and producer not in required and not path.exists():
                required.add(producer)
                problem = problem or f"stage {name} needs {path}, an output of {producer}, which is missing"
    if problem:
        names = " ".join(name for name in entries if name in required)
        raise ConfigError(f"{problem}: request all stages that are needed, --stages {names}, or the whole pipeline")


def outdated_stages(params: "Params", stages: Collection[str]) -> frozenset[str]:
    """Return those of `stages` whose outputs were made with other settings than these, or from such outputs.

    `dvc.lock` has the settings of each stage that has run; one without an entry counts as up to date.
    """
    lock = Path("dvc.lock")
    locked = _read_yaml(lock).get("stages", {}) if lock.exists() else {}
    outdated: dict[str, tuple[Path, ...]] = {}  # with their outputs
    for name, entry in stage_entries().items():
        if name not in stages:
            continue
        recorded = locked.get(name, {}).get("params", {}).get("params.yaml")
        has_changed = recorded is not None and any(
            not _are_settings(getattr(params, section), recorded.get(section)) for section in entry.sections
        )
        inputs = {folder for path in entry.inputs for folder in (path, *path.parents)}
        if has_changed or any(inputs.intersection(outputs) for outputs in outdated.values()):
            outdated[name] = entry.outputs
    return frozenset(outdated)


def _are_settings(section: "Config", recorded: Any) -> bool:
    """Whether the recorded values of a section, which may leave out defaults, are these settings."""
    try:
        return section == type(section).parse(recorded or {}, source="dvc.lock")
    except ConfigError:  # a key of another version of this project
        return False


def data_hashes(paths: Iterable[Path]) -> dict[str, str]:
    """Return DVC's hash of each path that DVC tracks, as an output in `dvc.lock` or through `<path>.dvc`.

    A path inside a tracked folder has the folder's hash.
    """
    tracked = {Path(output["path"]): output["md5"] for output in _locked_outputs()}
    for file in Path("data").glob("*.dvc"):
        outputs = _read_yaml(file).get("outs", ())
        tracked |= {file.parent / output["path"]: output["md5"] for output in outputs if "md5" in output}
    hashes = {}
    for path in paths:
        if root := next((parent for parent in (path, *path.parents) if parent in tracked), None):
            hashes[path.as_posix()] = str(tracked[root])
    return hashes


def committed_hashes() -> frozenset[str]:
    """Return the hashes of all outputs in `dvc.lock`, which DVC writes once a stage has succeeded."""
    return frozenset(output["md5"] for output in _locked_outputs())


def _locked_outputs() -> Iterator[Mapping[str, Any]]:
    file = Path("dvc.lock")
    for stage in _read_yaml(file).get("stages", {}).values() if file.exists() else ():
        yield from (output for output in stage.get("outs", ()) if "md5" in output)


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    return values if isinstance(values, dict) else {}
