"""The files of all batches to one model on one server, beside the ledger: what a killed run goes on from.

ledger.batches/<model>-<hash of address and model>/<time>-<n>/    one batch (`record.py`)
"""

import asyncio
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock, Timeout

from longreward.judge.batch.record import Facts, Record, disk_faults


class BatchFolder:
    """The batches to one model on one server, oldest first. Raises StateError where the disk refuses."""

    def __init__(self, ledger: Path, *, address: str, model: str) -> None:
        short = hashlib.sha256(f"{address}\n{model}".encode()).hexdigest()[:8]
        self.model = model
        root = ledger.with_name(f"{ledger.stem}.batches")
        self.path = root.resolve() / f"{_UNSAFE.sub('-', model).strip('-.')[-60:]}-{short}"
        with disk_faults(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.path / ".lock", thread_local=False)
        self.records: dict[str, Record] = {}
        self.refresh()

    def refresh(self) -> None:
        """Takes in the batches of other processes, and forgets those that are gone."""
        with disk_faults(self.path):
            there = sorted(each.name for each in self.path.iterdir() if (each / "ids.txt").is_file())
            known, self.records = self.records, {}
            for name in there:
                with suppress(FileNotFoundError):  # gone this moment
                    self.records[name] = known.get(name) or Record(self.path / name)

    def holding(self, name: str) -> Record | None:
        """The newest batch that the question is in and was not dropped from."""
        return next((record for record in reversed(self.records.values()) if name in record.open), None)

    def write(self, lines: Iterable[tuple[str, bytes]], *, most: int, most_bytes: int) -> None:
        """Makes batches of (id, request line), each within both limits; to be called with the lock held."""
        with disk_faults(self.path):
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

    def _add(self, new: "_New | None") -> None:
        if new is not None:
            name = f"{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**9:09d}-{len(self.records)}"
            new.finish(self.path / name)
            self.records[name] = Record(self.path / name)


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


_NEW = ".new-"
_UNSAFE = re.compile(r"[^\w.]+")
