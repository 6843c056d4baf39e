"""The files of all batches to one model on one server, beside the ledger: what a killed run goes on from.

ledger.batches/<model>-<hash of address and model>/
    <time>-<n>/                  one batch
        requests.jsonl           the questions in OpenAI's format
        ids.txt                  their ids, one a line
        batch.json               what is known of it: sha256, file, batch, whether it ended
        results*.jsonl           what came back, in any order
        done.txt                 ids that the ledger has an answer to, or that are to be asked anew
"""

import asyncio
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from longreward.errors import StateError
from longreward.jsonl import writing
from longreward.judging.batch.results import ResultFiles


@dataclass(frozen=True)
class Facts:
    """What is known of a batch, kept in batch.json."""

    requests: int
    sha256: str  # of requests.jsonl; the server keeps it with the batch, so that one made by a killed run is found
    attempted: bool = False  # to make the batch: it may be there although its id is not known
    batch: str | None = None
    ended: str | None = None  # the batch's last status, once its results are in results.jsonl


class Record:
    """One batch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests = folder / "requests.jsonl"
        self.results = folder / "results.jsonl"
        self._done = folder / "done.txt"
        self.open = set((folder / "ids.txt").read_text(encoding="utf-8").split())
        self.open -= set(self._done.read_text(encoding="utf-8").split() if self._done.exists() else ())
        self.facts = self._read()

    def learn(self, **facts: str | bool | None) -> None:
        """Keeps facts before it returns."""
        self.facts = replace(self.facts, **facts)  # type: ignore[arg-type]
        if not self.there:
            return
        with writing(self.folder / "batch.json") as file:
            json.dump(asdict(self.facts), file, indent=1)

    @property
    def there(self) -> bool:
        """Not yet removed by another process."""
        return (self.folder / "ids.txt").exists()

    @property
    def back(self) -> bool:
        """Whether results are there."""
        return self.results.exists()

    def refresh(self) -> None:
        """Takes in what another process learnt."""
        self.facts = self._read()

    def settle(self, name: str) -> None:
        """Nothing more is wanted of it about this question: its answer is in the ledger, or it is to be asked anew."""
        self.open.discard(name)
        with _saying(self.folder), suppress(FileNotFoundError), self._done.open("a", encoding="utf-8") as file:
            file.write(name + "\n")

    async def answers(self) -> ResultFiles | None:
        """What came back; None where the batch is removed. To be called with the lock held."""
        if not self.there:
            return None
        return await asyncio.to_thread(ResultFiles, sorted(self.folder.glob("results*.jsonl")))

    def _read(self) -> Facts:
        return Facts(**json.loads((self.folder / "batch.json").read_text(encoding="utf-8")))


class BatchFolder:
    """The batches to one model on one server, oldest first. Raises StateError where the disk refuses."""

    def __init__(self, ledger: Path, *, address: str, model: str) -> None:
        short = hashlib.sha256(f"{address}\n{model}".encode()).hexdigest()[:8]
        self.model = model
        root = ledger.with_name(f"{ledger.stem}.batches")
        self.path = root.resolve() / f"{_UNSAFE.sub('-', model).strip('-.')[-60:]}-{short}"
        with _saying(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.path / ".lock", thread_local=False)
        self.records: dict[str, Record] = {}
        self.refresh()

    def refresh(self) -> None:
        """Takes in the batches of other processes, and forgets those that are gone."""
        with _saying(self.path):
            there = sorted(each.name for each in self.path.iterdir() if (each / "ids.txt").is_file())
            known = self.records
            self.records = {name: known.get(name) or Record(self.path / name) for name in there}

    def holding(self, name: str) -> Record | None:
        """The newest batch that the question is in and was not dropped from."""
        return next((record for record in reversed(self.records.values()) if name in record.open), None)

    def write(self, lines: Iterable[tuple[str, bytes]], *, most: int, most_bytes: float) -> None:
        """Makes batches of (id, request line), each within both limits; to be called with the lock held."""
        with _saying(self.path):
            for abandoned in self.path.glob(f"{_NEW}*"):
                shutil.rmtree(abandoned)
            new: _New | None = None
            for name, line in lines:
                if new is None or new.count >= most or new.size + len(line) > most_bytes:
                    self._add(new)
                    new = _New(self.path)
                new.put(name, line)
            self._add(new)

    def clear(self) -> None:
        """Removes batches of which nothing is open any more; to be called with the lock held."""
        for record in [record for record in self.records.values() if not record.open]:
            self.remove(record)

    def remove(self, record: Record) -> None:
        """Everything in it is kept elsewhere, or is to be asked anew."""
        self.records.pop(record.folder.name, None)
        shutil.rmtree(record.folder, ignore_errors=True)

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Alone among the processes that use this folder."""
        while True:
            try:
                self._lock.acquire(timeout=0)
                break
            except Timeout:
                await asyncio.sleep(0.2)
        try:
            yield
        finally:
            self._lock.release()

    def spool(self) -> "Spool":
        """A place for lines that are not yet in a batch."""
        with _saying(self.path):
            return Spool(self.path)

    def _add(self, new: "_New | None") -> None:
        if new is not None:
            name = f"{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**9:09d}-{len(self.records)}"
            new.finish(self.path / name)
            self.records[name] = Record(self.path / name)


class Spool:
    """Lines on the disk, read back by their place; gone with the process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._end = 0

    def put(self, line: bytes) -> tuple[int, int]:
        """The line's place."""
        with _saying(self._folder):
            self._file.seek(self._end)
            self._file.write(line)
        place = (self._end, len(line))
        self._end += len(line)
        return place

    def get(self, place: tuple[int, int]) -> bytes:
        """The line at this place."""
        self._file.seek(place[0])
        return self._file.read(place[1])

    def clear(self) -> None:
        """Forgets all lines."""
        self._end = 0
        self._file.truncate(0)

    def close(self) -> None:
        self._file.close()


class _New:
    """A batch that is being written."""

    def __init__(self, root: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=_NEW, dir=root))
        self._requests = (self.folder / "requests.jsonl").open("wb")
        self._ids = (self.folder / "ids.txt").open("w", encoding="utf-8")
        self._sha = hashlib.sha256()
        self.count = self.size = 0

    def put(self, name: str, line: bytes) -> None:
        self._requests.write(line)
        self._ids.write(name + "\n")
        self._sha.update(line)
        self.count += 1
        self.size += len(line)

    def finish(self, place: Path) -> None:
        for file in (self._requests, self._ids):
            file.flush()
            os.fsync(file.fileno())
            file.close()
        facts = Facts(requests=self.count, sha256=self._sha.hexdigest())
        (self.folder / "batch.json").write_text(json.dumps(asdict(facts), indent=1), encoding="utf-8")
        self.folder.chmod(0o755)
        self.folder.rename(place)


@contextmanager
def _saying(path: Path) -> Iterator[None]:
    """What the disk refuses, as an error of ours."""
    try:
        yield
    except OSError as error:
        raise StateError(
            f"{path}: {error.strerror or error}; make room or give write permission, then run the same again"
        ) from error


_NEW = ".new-"
_UNSAFE = re.compile(r"[^\w.]+")
