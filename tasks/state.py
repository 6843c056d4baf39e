"""The state folder: what must outlive a stage that is killed, and is no stage's output.

    .longreward/ledger.sqlite            every exchange with a judge
    .longreward/judge-check/<key>.json   what a judge's check found, by a hash of its settings
    .longreward/<stage>/<key>/…          checkpoints and finished shards of a stage, by a hash of its inputs; they go
                                         once DVC has recorded the stage's outputs
    .longreward/outcomes/                how the stage of a pipeline that runs now ended
    .longreward/answers/<key>/…          the SFT models' answers to held-out prompts, which many evaluations share
    .longreward/mlflow.db, mlartifacts/  the MLflow store
    .longreward/prefect/                 the Prefect server's home

DVC deletes a stage's outputs before it runs the stage, so that only what lies here is found by the next try.
"""

import hashlib
import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from filelock import FileLock

from longreward.errors import StateError

STATE_VARIABLE = "LONGREWARD_STATE"
COMPLETE_MARK = ".finished-stage"  # a file in a stage's folder of progress


def state_folder() -> Path:
    """The folder, absolute and made: `LONGREWARD_STATE`, or `.longreward` of the repository (in an experiment's
    private copy, of the repository that it was started from, which DVC names in `DVC_ROOT`)."""
    folder = Path(os.environ.get(STATE_VARIABLE) or Path(os.environ.get("DVC_ROOT") or ".") / ".longreward").resolve()
    return make_folder(folder)


def make_folder(folder: Path) -> Path:
    """The folder, which exists from here on; raises StateError where the disk refuses."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StateError(
            f"cannot create the state folder {folder}: {error.strerror or error}; set {STATE_VARIABLE} to another one"
        ) from error
    return folder


def ledger_file() -> Path:
    """The file that keeps every exchange with a judge, for all stages and all runs."""
    return state_folder() / "ledger.sqlite"


def judge_checks() -> Path:
    """The folder of reports on judges."""
    return state_folder() / "judge-check"


def experiment_copies() -> Path:
    """The folder of the copies in which runs with settings of their own take place; each is deleted after its run."""
    return state_folder() / "experiments"


def state_lock(name: str) -> FileLock:
    """A lock that processes of this state folder share, as a context manager."""
    return FileLock(make_folder(state_folder() / "locks") / f"{name}.lock")


def file_digests(inputs: Iterable[Path]) -> dict[Path, bytes]:
    """Of each input file or folder, what changes with any of its bytes."""
    found = {}
    for path in sorted(inputs):
        digest = hashlib.blake2b(digest_size=32)
        for file in _files(path):
            digest.update(f"\0{file.as_posix()}\0".encode())
            digest.update(_digest(file))
        found[path] = digest.digest()
    return found


def stage_folder(stage: str, *, settings: str, inputs: Mapping[Path, bytes]) -> Path:
    """Where `stage` keeps its progress for exactly these settings and these `digests` of its inputs."""
    key = hashlib.blake2b(settings.encode(), digest_size=12)
    for path, digest in sorted(inputs.items()):
        key.update(f"\0{path.as_posix()}\0".encode())
        key.update(digest)
    return make_folder(state_folder() / stage / key.hexdigest())


def mark_complete(folder: Path, proof: str) -> None:
    """Note that the stage has written its outputs. Its progress stays until DVC has recorded them: were the stage to
    fail after this, a training would have to start anew. `proof` is the MD5 of an output that no other run writes."""
    (folder / COMPLETE_MARK).write_text(proof, encoding="utf-8")


def mark_incomplete(folder: Path) -> None:
    """Note that the stage is at work in its folder again."""
    (folder / COMPLETE_MARK).unlink(missing_ok=True)


def delete_committed(committed: Collection[str]) -> None:
    """Remove the progress of finished stages whose proof is among the hashes that DVC has recorded."""
    for mark in state_folder().glob(f"*/*/{COMPLETE_MARK}"):
        if mark.read_text(encoding="utf-8", errors="replace") in committed:
            shutil.rmtree(mark.parent, ignore_errors=True)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return [path] if path.is_file() else []


def _digest(file: Path) -> bytes:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "blake2b").digest()
