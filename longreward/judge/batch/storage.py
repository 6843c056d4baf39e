"""A line of a results file, as OpenAI and `vllm run-batch` write them, and a whole file by the questions' ids.

{"custom_id": "4be0…", "response": {"status_code": 200, "body": {"choices": […], …}}, "error": null}     an answer
{"custom_id": "4be0…", "response": {"status_code": 429, "body": {"error": {"message": …}}}, "error": null}
{"custom_id": "4be0…", "response": null, "error": {"code": "batch_expired", "message": …}}               none came
"""

import asyncio
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from longreward.errors import StateError
from longreward.utils.jsonl import open_atomic


@dataclass(frozen=True)
class Result:
    """What came back for one question: a reply with its HTTP status, or None and a reason."""

    status: int | None
    body: str  # JSON text; with status None, an object that holds "error"


def parse_line(line: bytes) -> tuple[str, Result] | None:
    """The question's id and what came of it; None for a line that is cut off or none of this format."""
    try:
        row = json.loads(line)
        name = row["custom_id"]
        response, error = row.get("response"), row.get("error")
        if not isinstance(response, dict):
            return str(name), Result(None, json.dumps({"error": error or {"message": "no response and no reason"}}))
        body = response.get("body")
        if body is None and error is not None:  # vLLM: {"error": {"error": {"message": …}}}
            body = error if isinstance(error, dict) and "error" in error else {"error": error}
        return str(name), Result(int(response.get("status_code") or 200), json.dumps(body))
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def missing_result(why: str) -> Result:
    """The result of a question that a finished batch does not mention."""
    return Result(None, json.dumps({"error": {"message": why}}))


class ResultFiles:
    """Results by id: where they lie is held in memory, what they say is read when it is asked for.

    The files stay open, so that another process may remove them.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._places: dict[str, tuple[IO[bytes], int]] = {}
        try:
            self._files = [file.open("rb") for file in files]
            for file in self._files:
                self._look_through(file)
        except OSError as error:
            raise StateError(f"{error.filename} cannot be read: {error.strerror or error}") from error

    def get(self, name: str) -> Result | None:
        """The result of one question; None where there is none."""
        place = self._places.get(name)
        if place is None:
            return None
        file, offset = place
        file.seek(offset)
        parsed = parse_line(file.readline())
        return None if parsed is None else parsed[1]

    def close(self) -> None:
        for file in self._files:
            file.close()

    def _look_through(self, file: IO[bytes]) -> None:
        offset = 0
        for line in file:
            parsed = parse_line(line)
            if parsed is not None and (parsed[0] not in self._places or _answers(parsed[1])):
                self._places[parsed[0]] = (file, offset)
            offset += len(line)


def _answers(result: Result) -> bool:
    return result.status is not None and result.status < 300


# One batch as it lies on the disk.
#
# <time>-<n>/
#     requests.jsonl           the questions in OpenAI's format
#     ids.txt                  their ids, one a line
#     batch.json               what is known of it (`Facts`)
#     results*.jsonl           what came back, in any order
#     done.txt                 ids that the ledger has an answer to, or that are to be asked anew


@dataclass(frozen=True)
class BatchState:
    """What is known of a batch, kept in batch.json."""

    requests: int
    sha256: str  # of requests.jsonl; the server keeps it with the batch, so that one made by a killed run is found
    attempted: bool = False  # to make the batch: it may be there although its id is not known
    batch: str | None = None
    ended: str | None = None  # the batch's last status, once its results are in results.jsonl


class BatchRecord:
    """One batch."""

    def __init__(self, folder: Path) -> None:
        """Raises FileNotFoundError where another process has removed it, StateError where it cannot be read."""
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
        with open_atomic(self.folder / "batch.json") as file:
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
        with disk_errors(self.folder), suppress(FileNotFoundError), self._done.open("a", encoding="utf-8") as file:
            file.write(name + "\n")

    async def answers(self) -> ResultFiles | None:
        """What came back; None where the batch is removed. To be called with the lock held."""
        if not self.there:
            return None
        return await asyncio.to_thread(ResultFiles, sorted(self.folder.glob("results*.jsonl")))

    def _read(self) -> BatchState:
        file = self.folder / "batch.json"
        try:
            return BatchState(**json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            raise StateError(f"{file} is damaged; remove {self.folder} to ask its questions anew") from None


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """What the disk refuses, as an error of ours."""
    try:
        yield
    except OSError as error:
        raise StateError(
            f"{path}: {error.strerror or error}; make room or give write permission, then run the same again"
        ) from error


# The files of all batches to one model on one server, beside the ledger: what a killed run goes on from.
#
# ledger.batches/<model>-<hash of address and model>/<time>-<n>/    one batch (`record.py`)


class BatchFolder:
    """The batches to one model on one server, oldest first. Raises StateError where the disk refuses."""

    def __init__(self, ledger: Path, *, address: str, model: str) -> None:
        short = hashlib.sha256(f"{address}\n{model}".encode()).hexdigest()[:8]
        self.model = model
        root = ledger.with_name(f"{ledger.stem}.batches")
        self.path = root.resolve() / f"{_UNSAFE.sub('-', model).strip('-.')[-60:]}-{short}"
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.path / ".lock", thread_local=False)
        self.records: dict[str, BatchRecord] = {}
        self.refresh()

    def refresh(self) -> None:
        """Takes in the batches of other processes, and forgets those that are gone."""
        with disk_errors(self.path):
            there = sorted(each.name for each in self.path.iterdir() if (each / "ids.txt").is_file())
            known, self.records = self.records, {}
            for name in there:
                with suppress(FileNotFoundError):  # gone this moment
                    self.records[name] = known.get(name) or BatchRecord(self.path / name)

    def holding(self, name: str) -> BatchRecord | None:
        """The newest batch that the question is in and was not dropped from."""
        return next((record for record in reversed(self.records.values()) if name in record.open), None)

    def write(self, lines: Iterable[tuple[str, bytes]], *, most: int, most_bytes: int) -> None:
        """Makes batches of (id, request line), each within both limits; to be called with the lock held."""
        with disk_errors(self.path):
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

    def remove(self, record: BatchRecord) -> None:
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
            self.records[name] = BatchRecord(self.path / name)


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
        facts = BatchState(requests=self.count, sha256=self._sha.hexdigest())
        (self.folder / "batch.json").write_text(json.dumps(asdict(facts), indent=1), encoding="utf-8")
        self.folder.chmod(0o755)
        self.folder.rename(place)


_NEW = ".new-"
_UNSAFE = re.compile(r"[^\w.]+")


# Request lines that are in no batch yet: on the disk, since a round may hold gigabytes of them.


class Spool:
    """Lines on the disk, read back by their place; gone with the process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with disk_errors(folder):
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._end = 0

    def put(self, line: bytes) -> tuple[int, int]:
        """The line's place."""
        with disk_errors(self._folder):
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
