"""The state folder: what must survive a stage that is killed, and is not an output of a stage.

    .longreward/ledger.sqlite            every exchange with a judge
    .longreward/judge-check/<key>.json   reports of judge checks, by a hash of the judge's settings
    .longreward/<stage>/<key>/…          checkpoints and finished shards of a stage, by a hash of its inputs and
                                         settings; deleted once DVC has recorded the stage's outputs
    .longreward/answers/<key>/…          answers of SFT models to held-out prompts, which many evaluations share
    .longreward/stage-exits/             how the running stage of a pipeline ended
    .longreward/queue/, locks/           pipelines that run or wait, and file locks
    .longreward/mlflow.db, mlartifacts/  the MLflow store
    .longreward/prefect/                 the home of the Prefect servers

DVC deletes a stage's outputs before it runs the stage, so the next try finds only what is here.
"""

import hashlib
import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from filelock import FileLock

from longreward.errors import StateError

STATE_VARIABLE = "LONGREWARD_STATE"
COMPLETE_MARK = ".finished-stage"


def state_folder() -> Path:
    """Return the absolute path of the state folder, which exists."""
    return make_folder(state_path())


def state_path() -> Path:
    """Return the absolute path of the state folder, which may be missing.

    It is `LONGREWARD_STATE`, or `.longreward` of the repository; DVC names the original one in `DVC_ROOT` when it runs
    a stage in a private copy.
    """
    folder = os.environ.get(STATE_VARIABLE) or Path(os.environ.get("DVC_ROOT") or ".") / ".longreward"
    return Path(folder).resolve()


def make_folder(folder: Path) -> Path:
    """Create the folder if it is missing, and return it; raises StateError if the file system refuses."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise StateError(f"cannot create the state folder {folder}: {reason}; set {STATE_VARIABLE}") from error
    return folder


def ledger_file() -> Path:
    """Return the ledger of all exchanges with judges, which all stages and runs share."""
    return state_folder() / "ledger.sqlite"


def judge_checks() -> Path:
    """Return the folder of reports on judges."""
    return state_folder() / "judge-check"


def project_path(path: Path) -> Path:
    """Resolve a path of the project, also in a private copy, which has only what git and DVC have recorded."""
    return Path(os.environ.get("DVC_ROOT") or ".") / path


def experiment_copies() -> Path:
    """Return the folder of the private copies in which runs with their own settings work."""
    return state_folder() / "experiments"


def state_lock(name: str) -> FileLock:
    """Return a lock among the processes of this state folder, as a context manager."""
    return FileLock(make_folder(state_folder() / "locks") / f"{name}.lock")


def file_digests(inputs: Iterable[Path]) -> dict[Path, bytes]:
    """Return a digest of each file or folder, which changes with any name or byte in it."""
    digests = {}
    for path in sorted(inputs):
        digest = hashlib.blake2b(digest_size=32)
        files = [path] if path.is_file() else sorted(path.rglob("*"))  # no files if the path is missing
        for file in (file for file in files if file.is_file() and "__pycache__" not in file.parts):
            digest.update(f"\0{file.as_posix()}\0".encode())
            with file.open("rb") as content:
                digest.update(hashlib.file_digest(content, "blake2b").digest())
        digests[path] = digest.digest()
    return digests


def stage_folder(stage: str, *, settings: str, inputs: Mapping[Path, bytes]) -> Path:
    """Return the folder in which `stage` keeps its progress for these settings and `file_digests` of its inputs."""
    key = hashlib.blake2b(settings.encode(), digest_size=12)
    for path, digest in sorted(inputs.items()):
        key.update(f"\0{path.as_posix()}\0".encode())
        key.update(digest)
    return make_folder(state_folder() / stage / key.hexdigest())


def mark_complete(folder: Path, output_hash: str) -> None:
    """Mark the progress of a stage that has written its outputs, one of which has the MD5 `output_hash`.

    The folder stays until DVC has recorded that hash: if DVC fails after the stage, a training need not start again.
    """
    (folder / COMPLETE_MARK).write_text(output_hash, encoding="utf-8")


def mark_incomplete(folder: Path) -> None:
    """Remove the mark, as the stage works in its folder again."""
    (folder / COMPLETE_MARK).unlink(missing_ok=True)


def delete_committed(committed: Collection[str]) -> None:
    """Delete the progress of complete stages whose output is among the hashes that DVC has recorded."""
    for mark in state_folder().glob(f"*/*/{COMPLETE_MARK}"):
        if mark.read_text(encoding="utf-8", errors="replace") in committed:
            shutil.rmtree(mark.parent, ignore_errors=True)
