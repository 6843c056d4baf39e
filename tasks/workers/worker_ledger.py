"""What the judge answered a worker: in a ledger of the worker's own, until the stage has it in the project's.

    <stage folder>/workers/<shard>@<process>.sqlite          where the worker sees that folder on a disk of this machine
    <its own state folder>/workers/<key>/<shard>@….sqlite    else: on another machine, or over a network file system

So SQLite's log never goes over a network file system, and no two processes write to one file. A shard that lost its
worker goes on from that worker's file where its next worker finds it; a later try of the stage finds them all.
"""

import hashlib
import shutil
import socket
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from longreward.errors import DataError, StateError
from longreward.judge.ledger import Exchange, Ledger
from longreward.judge.ledger.file_systems import network_file_system
from longreward.judge.ledger.merge import merge_ledgers
from longreward.tasks.state import make_folder, state_folder

PROCESS = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"  # a number alone comes back, and so do containers' names


@dataclass(frozen=True)
class WorkerContext:
    """Where the stage works, as a worker is told."""

    project: Path
    folder: Path
    """The stage's own folder of shards."""
    mark: str
    """What the file `mark` in `folder/workers` holds, by which a worker knows that it sees the same folder."""

    @classmethod
    def make(cls, folder: Path) -> "WorkerContext":
        """Of the stage that runs in this process."""
        place = cls(Path.cwd(), folder.resolve(), uuid.uuid4().hex)
        (make_folder(place.files) / "mark").write_text(place.mark, encoding="ascii")
        return place

    @property
    def files(self) -> Path:
        return self.folder / "workers"

    @property
    def is_seen(self) -> bool:
        """Whether this process sees the stage's folder."""
        try:
            return (self.files / "mark").read_text(encoding="ascii") == self.mark
        except (OSError, UnicodeDecodeError):
            return False

    @property
    def is_shared(self) -> bool:
        """Whether a worker may keep its ledger there."""
        return self.is_seen and network_file_system(self.files) is None

    @property
    def home(self) -> Path:
        """Where this process keeps its ledgers."""
        return self.files if self.is_shared else state_folder() / "workers" / self.folder.name


def shard_of(ids: Iterable[str]) -> str:
    """The name of the shard that holds these items, in whatever try."""
    return hashlib.blake2b("\0".join(ids).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def own_ledger(place: WorkerContext, shard: str, known: Sequence[Exchange]) -> Path:
    """This process's ledger for `shard`, with what the stage handed and what earlier workers on it left here."""
    own = make_folder(place.home) / f"{shard}@{PROCESS}.sqlite"
    with Ledger(own) as ledger:
        ledger.put_many(known)
    others = [file for file in own.parent.glob(f"{shard}@*.sqlite") if file != own]
    if others:
        merge_ledgers(others, into=own, salvage=True)
    return own


def to_send(place: WorkerContext, file: Path) -> bytes | None:
    """A closed ledger's bytes; None where the stage sees the file itself."""
    return None if place.is_shared else file.read_bytes()


def leftover_cache(place: WorkerContext, *, forget: bool = False) -> list[bytes]:
    """The ledgers that this machine keeps where the stage does not see them; `forget` removes them.

    A worker that still runs closes its ledger with each shard; what a log holds of a killed one is taken along.
    """
    if place.is_shared or not place.home.is_dir():
        return []
    found = []
    for file in sorted(place.home.glob("*.sqlite")):
        whole = file.with_name(f"{file.name}.{PROCESS}")
        try:
            merge_ledgers([file], into=whole, salvage=True)
            found.append(whole.read_bytes())
        except (DataError, StateError, OSError):  # one that another worker of this machine has just removed
            continue
        finally:
            whole.unlink(missing_ok=True)
    if forget:
        shutil.rmtree(place.home, ignore_errors=True)
    return found


def merge_cache(place: WorkerContext, ledger: Path, sent: Iterable[bytes] = (), *, shard: str = "") -> None:
    """Merges what workers sent and what lies in the stage's folder (of `shard`, else all) into the project's ledger.

    Merging again changes nothing, so the files stay until the stage's folder goes.
    """
    received = []
    for number, content in enumerate(sent):
        received.append(place.files / f"received-{uuid.uuid4().hex[:8]}-{number}@stage.sqlite")
        received[-1].write_bytes(content)
    files = {*place.files.glob(f"{shard}*@*.sqlite"), *received}
    if files:
        merge_ledgers(sorted(files), into=ledger, salvage=True)
    for file in received:
        file.unlink()
