"""What a stage reads, as MLflow's data sets: name, hash, size and columns, so that runs on the same data are found."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

CONTEXTS = {"sft": "training", "train": "training", "evaluate": "evaluation"}  # else the stage's own name
COUNTED_BYTES = 256 * 2**20  # counting the lines of more would hold a stage up
LONGEST_LINE = 2**20


def dataset_inputs(stage: str, hashes: Mapping[str, str]) -> list[Any]:
    """MLflow's entities for what a stage reads.

    `hashes`: path -> DVC's hash (of its folder, where DVC knows that as a whole). Models are tags, no data sets.
    """
    from mlflow.entities import DatasetInput, InputTag

    context = InputTag("mlflow.data.context", CONTEXTS.get(stage, stage))
    data = {Path(path): hash_ for path, hash_ in hashes.items() if Path(path).parts[0] != "models"}
    return [DatasetInput(_dataset(path, hash_), [context]) for path, hash_ in data.items()]


def _dataset(path: Path, hash_: str) -> Any:
    from mlflow.entities import Dataset

    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    columns = list(_columns(path, files))
    return Dataset(
        name=path.as_posix(),
        digest=hash_[:36],  # MLflow's limit, and the length of a folder's hash in DVC
        source_type="local",
        source=json.dumps({"uri": path.as_posix()}),
        schema=json.dumps({"mlflow_colspec": columns}) if columns else None,
        profile=json.dumps(_profile(path, files)),
    )


def _profile(path: Path, files: Iterable[Path]) -> dict[str, int]:
    """Bytes, files, and the rows of each jsonl file; no rows where there are too many bytes to count them quickly."""
    sizes = {file: file.stat().st_size for file in files}
    profile = {"bytes": sum(sizes.values()), "files": len(sizes)}
    if profile["bytes"] <= COUNTED_BYTES:
        profile |= {f"{_place(file, path)}rows": _rows(file) for file in sizes if file.suffix == ".jsonl"}
    return profile


def _columns(path: Path, files: Iterable[Path]) -> Iterable[dict[str, Any]]:
    """From the first line of each jsonl file."""
    kinds = {str: "string", bool: "boolean", int: "long", float: "double", list: "array", dict: "object"}
    for file in files:
        if file.suffix == ".jsonl":
            with file.open("rb") as lines:
                first = lines.readline(LONGEST_LINE)
            try:
                row = json.loads(first)
            except ValueError:  # the stage itself says what is wrong with its input
                continue
            for name, value in row.items() if isinstance(row, dict) else ():
                kind = kinds.get(type(value), "string")
                yield {"name": f"{_place(file, path)}{name}", "type": kind, "required": True}


def _place(file: Path, path: Path) -> str:
    return "" if file == path else f"{file.relative_to(path).as_posix()}: "


def _rows(file: Path) -> int:
    with file.open("rb") as content:
        return sum(block.count(b"\n") for block in iter(lambda: content.read(2**20), b""))
