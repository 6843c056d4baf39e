"""The ledger of a worker: the judge's replies until the stage has merged them into the project's ledger.

    <state folder of the worker>/workers/<key of the stage>/<shard>@<process>.sqlite

Each worker process writes a file of its own, since SQLite's write-ahead log must not be shared by machines. The files
stay until the stage has succeeded. A shard whose worker was killed continues from the files that its next worker sees;
the next attempt of the stage collects the files of all workers.
"""

import hashlib
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from longreward.errors import DataError, StateError
from longreward.judge.ledger import Exchange, Ledger
from longreward.judge.ledger.merge import merge_ledgers
from longreward.tasks.state import make_folder, state_folder

PROCESS = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"  # process ids and the host names of containers repeat


@dataclass(frozen=True)
class WorkerContext:
    """Where the stage runs."""

    project: Path
    """The stage's working directory, to which paths in `params.yaml` are relative."""
    stage_key: str
    """The name of the stage's state folder, a hash of its inputs."""

    @classmethod
    def for_stage(cls, state: Path) -> "WorkerContext":
        """Describe the stage that runs in this process."""
        return cls(Path.cwd(), state.resolve().name)

    @property
    def ledger_folder(self) -> Path:
        """The folder of this process's ledgers of the stage."""
        return state_folder() / "workers" / self.stage_key


def shard_key(ids: Iterable[str]) -> str:
    """Return a name for the shard of these items that is the same in every attempt."""
    return hashlib.blake2b("\0".join(ids).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def create_worker_ledger(context: WorkerContext, shard: str, cached: Sequence[Exchange]) -> Path:
    """Create this process's ledger for a shard.

    It holds the `cached` exchanges, which come from the project's ledger, and those of earlier workers on this shard.
    """
    path = make_folder(context.ledger_folder) / f"{shard}@{PROCESS}.sqlite"
    with Ledger(path) as ledger:
        ledger.put_many(cached)
    others = [file for file in path.parent.glob(f"{shard}@*.sqlite") if file != path]
    if others:
        merge_ledgers(others, into=path, salvage=True)
    return path


def read_leftover_ledgers(context: WorkerContext) -> list[bytes]:
    """Return the content of the ledgers that earlier attempts of the stage left on this machine.

    Each is copied through `merge_ledgers`, which also reads the write-ahead log of a killed process.
    """
    contents = []
    for file in sorted(context.ledger_folder.glob("*@*.sqlite")):
        with tempfile.TemporaryDirectory(dir=context.ledger_folder) as folder:
            copy = Path(folder) / "copy.sqlite"
            try:
                merge_ledgers([file], into=copy, salvage=True)
                contents.append(copy.read_bytes())
            except (DataError, StateError, OSError):  # removed meanwhile, or unreadable: its requests are repeated
                continue
    return contents


def remove_ledgers(context: WorkerContext) -> None:
    """Remove the stage's ledgers on this machine."""
    shutil.rmtree(context.ledger_folder, ignore_errors=True)


def merge_contents(contents: Iterable[bytes], *, into: Path) -> None:
    """Merge the content of workers' ledgers into the project's ledger; merging the same again changes nothing."""
    with tempfile.TemporaryDirectory(dir=state_folder()) as folder:
        files = []
        for number, content in enumerate(set(contents)):  # workers of one machine return the same files
            files.append(Path(folder) / f"{number}.sqlite")
            files[-1].write_bytes(content)
        if files:
            merge_ledgers(files, into=into, salvage=True)
