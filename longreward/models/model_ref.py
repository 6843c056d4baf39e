"""Where the files of a model are: a folder, a hub id with its revision, or a pointer file left by `sft`.

    models/my-sft              a folder
    models/mine.gguf           a file of llama.cpp (gguf.py)
    org/name, org/name@v2      a hub id, at `policy.revision` or at its own revision (commit, tag or branch)
    models/sft/model.json      {"model": …, "revision": …, "fingerprint": …}, written by `link_pretrained`

A pointer stores a fingerprint of the folder that it refers to. Loading fails if that folder has changed since. `sft`
converts a GGUF file to a folder instead of pointing to it.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from longreward.errors import PolicyError
from longreward.models.config import PolicyConfig
from longreward.models.gguf import SUFFIX, gguf_kwargs, is_gguf

POINTER_NAME = "model.json"
# Files up to this size (configs, tokenizers, small models) are hashed whole. Of larger ones only both ends and evenly
# spaced samples are hashed: 16 GB in four files take less than a second.
FULL_HASH_BYTES = 32 << 20
EDGE_BYTES, SAMPLE_BYTES, SAMPLE_COUNT = 1 << 20, 1 << 16, 64
RERUN_ADVICE = "run `dvc repro --force sft` (or `longreward run --force --stages sft`) to use the model as it is now"


def pretrained_kwargs(config: PolicyConfig, model: str | Path) -> dict[str, Any]:
    """Return the arguments of transformers' `from_pretrained` for a folder, GGUF file, hub id or pointer.

    Raises PolicyError if `model` looks like a path and does not exist, or if a pointer is stale.
    """
    if (Path(model) / POINTER_NAME).is_file():  # written by `sft`
        check_pointer(Path(model))
        target = _read_pointer(Path(model) / POINTER_NAME)
        return pretrained_kwargs(config.model_copy(update={"revision": target["revision"]}), target["model"])
    common = {"trust_remote_code": config.trust_remote_code}
    if Path(model).is_dir():
        return {"pretrained_model_name_or_path": str(model), **common, "local_files_only": True}
    if is_gguf(model):
        return {**gguf_kwargs(Path(model)), **common, "local_files_only": True}
    # Without this check transformers would search the hub for a mistyped path and report a confusing error.
    is_path = isinstance(model, Path) or model.startswith((".", "/", "~")) or model.count("/") > 1
    is_path |= Path(model).parent != Path() and Path(model).parent.is_dir()  # models/x next to models/y
    if Path(model).suffix.lower() == SUFFIX:
        raise PolicyError(f"{model}: no such file; a GGUF file of the hub must be downloaded first")
    if is_path or Path(model).exists():
        raise PolicyError(f"{model}: no such folder of a model, and no GGUF file")
    name, _, revision = str(model).partition("@")
    return {"pretrained_model_name_or_path": name, **common, "revision": revision or config.revision}


def write_pointer(config: PolicyConfig, model: str, out: Path) -> None:
    """Write a pointer to `model` into the folder `out`; a hub id is pinned to the commit in the local cache."""
    from huggingface_hub import try_to_load_from_cache

    if Path(model).is_dir():
        target = {"model": str(Path(model).resolve()), "revision": None, "fingerprint": fingerprint(Path(model))}
    else:
        kwargs = pretrained_kwargs(config, model)
        name, revision = kwargs["pretrained_model_name_or_path"], kwargs.get("revision")
        # A branch may move, so the commit that was loaded is recorded: the name of the folder of the cached config.
        file = try_to_load_from_cache(name, "config.json", revision=revision)
        commit = Path(file).parent.name if isinstance(file, str) else revision
        target = {"model": name, "revision": commit, "fingerprint": None}
    out.mkdir(parents=True, exist_ok=True)
    (out / POINTER_NAME).write_text(json.dumps(target, indent=2) + "\n", encoding="utf-8")


def check_pointer(folder: Path) -> None:
    """Raise PolicyError if `folder` is a pointer to a model that is missing or has changed; accept other folders."""
    pointer = folder / POINTER_NAME
    if not pointer.is_file():
        return
    target = _read_pointer(pointer)
    if target["fingerprint"] is None:
        return
    if not Path(target["model"]).is_dir():
        raise PolicyError(f"{pointer} points to {target['model']}, which is gone; restore it, or {RERUN_ADVICE}")
    if fingerprint(Path(target["model"])) != target["fingerprint"]:
        raise PolicyError(f"{pointer} points to {target['model']}, which has changed since; {RERUN_ADVICE}")


def fingerprint(folder: Path) -> str:
    """Return a SHA-256 hash of a model's file names, sizes and contents (about 6 MiB of each large file).

    `folder` may be a single file. Readme files (*.md) and hidden files are ignored.
    """
    digest = hashlib.sha256()
    root = folder.parent if folder.is_file() else folder
    for file in [folder] if folder.is_file() else sorted(folder.rglob("*")):
        name = file.relative_to(root)
        if file.suffix == ".md" or any(part.startswith(".") for part in name.parts) or not file.is_file():
            continue
        size = file.stat().st_size
        digest.update(f"{name.as_posix()}\0{size}\0".encode())
        ranges = [(0, size)]  # (start, length) of each part that is hashed
        if size > FULL_HASH_BYTES:
            stride = (size - 2 * EDGE_BYTES) // SAMPLE_COUNT
            samples = [(EDGE_BYTES + stride * number, SAMPLE_BYTES) for number in range(SAMPLE_COUNT)]
            ranges = [(0, EDGE_BYTES), *samples, (size - EDGE_BYTES, EDGE_BYTES)]
        with file.open("rb") as stream:
            for start, length in ranges:
                stream.seek(start)
                digest.update(stream.read(length))
    return digest.hexdigest()


def _read_pointer(pointer: Path) -> dict[str, Any]:
    try:
        target = json.loads(pointer.read_text(encoding="utf-8"))
        return {"model": target["model"], "revision": target["revision"], "fingerprint": target.get("fingerprint")}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PolicyError(f"{pointer} is not a valid model pointer ({error!r}); {RERUN_ADVICE}") from error
