"""Where a model's files are: a folder, a hub id with its revision, or a pointer that `sft` left in place of a model.

    models/my-sft              a folder
    org/name, org/name@v2      a hub id, at `policy.revision` or at a revision of its own: commit, tag or branch
    models/sft/model.json      {"model": …, "revision": …, "fingerprint": …}, written by `pass_on` and followed

A pointer holds a fingerprint of the folder that it stands for, so that a model that changed behind it is noticed
wherever it is loaded.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longreward.errors import PolicyError

if TYPE_CHECKING:
    from longreward.models.config import PolicyConfig

POINTER = "model.json"
WHOLE = 32 << 20  # bytes up to which a file is read whole: configs, tokenizers, small models
EDGE, SAMPLE, SAMPLES = 1 << 20, 1 << 16, 64  # of a larger one: both ends and as many samples between them
AGAIN = "run `dvc repro --force sft` (or `longreward run --force --stages sft`), which takes it as it is now"


def pretrained_kwargs(config: "PolicyConfig", model: str | Path) -> dict[str, Any]:
    """The arguments of transformers' `from_pretrained`; PolicyError where there is no such model here."""
    pointer = Path(model) / POINTER
    if pointer.is_file():
        return _follow(config, pointer)
    if Path(model).is_dir():
        return {**_common(config, str(model)), "local_files_only": True}
    looks_local = isinstance(model, Path) or model.startswith((".", "/", "~")) or model.count("/") > 1
    looks_local |= Path(model).parent != Path() and Path(model).parent.is_dir()  # models/x beside models/y
    if looks_local or Path(model).exists():
        raise PolicyError(f"{model}: no such folder of a model")
    name, _, own = str(model).partition("@")
    return {**_common(config, name), "revision": own or config.revision}


def write_pointer(config: "PolicyConfig", model: str, out: Path) -> None:
    """Makes `out` a folder that only says which model stands for it: a hub id at the commit that was loaded here."""
    folder, where = Path(model), pretrained_kwargs(config, model)
    name, revision = where["pretrained_model_name_or_path"], where.get("revision")
    if folder.is_dir():
        target = {"model": str(folder.resolve()), "revision": None, "fingerprint": fingerprint(folder)}
    else:
        target = {"model": name, "revision": _commit(name, revision) or revision, "fingerprint": None}
    out.mkdir(parents=True, exist_ok=True)
    (out / POINTER).write_text(json.dumps(target, indent=2) + "\n", encoding="utf-8")


def check_pointer(folder: Path) -> None:
    """PolicyError where `folder` points to a model that is gone or has changed since; nothing for other folders."""
    pointer = folder / POINTER
    if not pointer.is_file():
        return
    target = _read(pointer)
    expected = target.get("fingerprint")
    if expected is None:
        return
    if not Path(target["model"]).is_dir():
        raise PolicyError(f"{pointer} stands for {target['model']}, which is gone; bring it back, or {AGAIN}")
    if fingerprint(Path(target["model"])) != expected:
        raise PolicyError(f"{pointer} stands for {target['model']}, which has changed since; {AGAIN}")


def fingerprint(folder: Path) -> str:
    """A hash of a model's files: their names, their sizes, small ones whole, of large ones some 6 MiB each.

    Readable notes (*.md) and hidden files do not count. 16 GB in four files take less than a second.
    """
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        if file.suffix == ".md" or any(part.startswith(".") for part in name.parts) or not file.is_file():
            continue
        size = file.stat().st_size
        digest.update(f"{name.as_posix()}\0{size}\0".encode())
        with file.open("rb") as stream:
            for start, length in _parts(size):
                stream.seek(start)
                digest.update(stream.read(length))
    return digest.hexdigest()


def _parts(size: int) -> list[tuple[int, int]]:
    """What is read of a file of `size` bytes: (start, length) of each part."""
    if size <= WHOLE:
        return [(0, size)]
    stride = (size - 2 * EDGE) // SAMPLES
    samples = [(EDGE + stride * number, SAMPLE) for number in range(SAMPLES)]
    return [(0, EDGE), *samples, (size - EDGE, EDGE)]


def _commit(name: str, revision: str | None) -> str | None:
    """The commit behind a branch or tag, from the name of the folder in the hub's cache that its config came from."""
    from huggingface_hub import try_to_load_from_cache

    file = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(file).parent.name if isinstance(file, str) else None


def _follow(config: "PolicyConfig", pointer: Path) -> dict[str, Any]:
    check_pointer(pointer.parent)
    target = _read(pointer)
    return pretrained_kwargs(config.model_copy(update={"revision": target["revision"]}), target["model"])


def _read(pointer: Path) -> dict[str, Any]:
    try:
        target = json.loads(pointer.read_text(encoding="utf-8"))
        return {"model": target["model"], "revision": target["revision"], "fingerprint": target.get("fingerprint")}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PolicyError(f"{pointer} does not say which model it stands for ({error!r}); {AGAIN}") from error


def _common(config: "PolicyConfig", name: str) -> dict[str, Any]:
    return {"pretrained_model_name_or_path": name, "trust_remote_code": config.trust_remote_code}
