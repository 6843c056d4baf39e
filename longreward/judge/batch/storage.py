"""The batches of one judge on disk, beside the ledger; a killed run resumes from them. One process at a time uses them.

    ledger.batches/<model>-<hash of address and model>/<time>-<n>/
        requests.jsonl           the requests in OpenAI's batch format
        ids.txt                  their ids, one per line
        batch.json               the state of the batch (`BatchState`)
        results*.jsonl           the results, in any order
        done.txt                 ids whose replies are in the ledger, or that will be requested in another batch

A results file, as OpenAI and `vllm run-batch` write it:

    {"custom_id": "4be0…", "response": {"status_code": 200, "body": {"choices": […], …}}, "error": null}
    {"custom_id": "4be0…", "response": {"status_code": 429, "body": {"error": {"message": …}}}, "error": null}
    {"custom_id": "4be0…", "response": null, "error": {"code": "batch_expired", "message": …}}
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from longreward.errors import StateError
from longreward.utils.jsonl import open_atomic

TEMPORARY_PREFIX = ".new-"


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn OSError into StateError with advice."""
    try:
        yield
    except OSError as error:
        raise StateError(
            f"{path}: {error.strerror or error}; free some space or give write permission, then run the stage again"
        ) from error


@dataclass(frozen=True)
class BatchResult:
    """The result of one request: an HTTP status with a body, or no status and a body with the key "error"."""

    status: int | None
    body: str  # JSON

    @property
    def is_success(self) -> bool:
        return self.status is not None and self.status < 300


def missing_result(reason: str) -> BatchResult:
    """Return the result of a request that the finished batch does not contain."""
    return BatchResult(None, json.dumps({"error": {"message": reason}}))


def parse_result(line: bytes) -> tuple[str, BatchResult] | None:
    """Return the id and the result of a line; None if the line is cut off or has another format."""
    try:
        row = json.loads(line)
        request_id = str(row["custom_id"])
        response, error = row.get("response"), row.get("error")
        if not isinstance(response, dict):
            error = error or {"message": "no response and no reason"}
            return request_id, BatchResult(None, json.dumps({"error": error}))
        body = response.get("body")
        if body is None and error is not None:  # vLLM writes the error beside a response without a body
            body = error if isinstance(error, dict) and "error" in error else {"error": error}
        return request_id, BatchResult(int(response.get("status_code") or 200), json.dumps(body))
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def read_results(paths: Iterable[Path]) -> dict[str, BatchResult]:
    """Return the results in these files by request id.

    Several programs may process parts of one batch: of several results for one request the last success counts, else
    the first failure.
    """
    results: dict[str, BatchResult] = {}
    for path in paths:
        with disk_errors(path), path.open("rb") as file:
            for line in file:
                parsed = parse_result(line)
                if parsed is not None and (parsed[0] not in results or parsed[1].is_success):
                    results[parsed[0]] = parsed[1]
    return results


@dataclass(frozen=True)
class BatchState:
    """The content of batch.json."""

    requests: int
    sha256: str
    """Of requests.jsonl. The server stores it with the batch, so that a batch is found again if its id was lost."""
    submitting: bool = False
    """The batch may exist on the server although its id is unknown."""
    batch_id: str | None = None
    final_status: str | None = None
    """Set when the results are in results.jsonl."""


class BatchRecord:
    """One batch on disk. Raises StateError if batch.json is damaged."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests = folder / "requests.jsonl"
        self.results = folder / "results.jsonl"
        self._done = folder / "done.txt"
        self.open_ids = set((folder / "ids.txt").read_text(encoding="utf-8").split())
        if self._done.exists():
            self.open_ids -= set(self._done.read_text(encoding="utf-8").split())
        path = folder / "batch.json"
        try:
            self.state = BatchState(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            raise StateError(f"{path} is damaged; remove {folder} to make its requests again") from None

    @property
    def has_results(self) -> bool:
        return self.results.exists()

    def update(self, **changes: str | bool | None) -> None:
        """Change fields of the state and write batch.json."""
        self.state = replace(self.state, **changes)  # type: ignore[arg-type]
        with open_atomic(self.folder / "batch.json") as file:
            json.dump(asdict(self.state), file, indent=1)

    def mark_done(self, request_id: str) -> None:
        """Note that the request's reply is in the ledger, or that it will be requested in another batch."""
        # Not synced to disk: if a power cut loses the line, the next run finds the reply in the ledger.
        self.open_ids.discard(request_id)
        with disk_errors(self.folder), self._done.open("a", encoding="utf-8") as file:
            file.write(request_id + "\n")

    def read_results(self) -> dict[str, BatchResult]:
        """Return the results by request id."""
        return read_results(sorted(self.folder.glob("results*.jsonl")))


class BatchFolder:
    """The batches of one model on one server, from the oldest to the newest.

    Raises StateError if the disk fails or another process uses the folder.
    """

    def __init__(self, ledger: Path, *, address: str, model: str) -> None:
        short_hash = hashlib.sha256(f"{address}\n{model}".encode()).hexdigest()[:8]
        safe_name = re.sub(r"[^\w.]+", "-", model).strip("-.")[-60:]
        self.model = model
        self.path = ledger.with_name(f"{ledger.stem}.batches").resolve() / f"{safe_name}-{short_hash}"
        with disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.path / ".lock", thread_local=False)
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                raise StateError(
                    f"{self.path}: another process waits for these batches of {model!r}; wait until it ends, or give "
                    "this run a ledger of its own"
                ) from None
            names = sorted(folder.name for folder in self.path.iterdir() if (folder / "ids.txt").is_file())
            self.records = {name: BatchRecord(self.path / name) for name in names}

    def close(self) -> None:
        """Remove finished batches and let other processes use the folder."""
        self.remove_finished()
        self._lock.release()

    def find(self, request_id: str) -> BatchRecord | None:
        """Return the newest batch in which the request is open."""
        return next((record for record in reversed(self.records.values()) if request_id in record.open_ids), None)

    def write(self, requests: Iterable[tuple[str, bytes]], *, max_requests: int, max_bytes: int) -> None:
        """Write batches from pairs of id and line, each within both limits."""
        with disk_errors(self.path):
            for abandoned in self.path.glob(f"{TEMPORARY_PREFIX}*"):
                shutil.rmtree(abandoned)
            writer: _BatchWriter | None = None
            for request_id, line in requests:
                if writer is None or writer.count >= max_requests or writer.size + len(line) > max_bytes:
                    self._finish(writer)
                    writer = _BatchWriter(self.path)
                writer.write(request_id, line)
            self._finish(writer)

    def remove_finished(self) -> None:
        """Remove the batches without open requests."""
        for record in [record for record in self.records.values() if not record.open_ids]:
            self.remove(record)

    def remove(self, record: BatchRecord) -> None:
        """Delete the batch from disk."""
        self.records.pop(record.folder.name, None)
        shutil.rmtree(record.folder, ignore_errors=True)

    def _finish(self, writer: "_BatchWriter | None") -> None:
        if writer is not None:
            name = f"{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**9:09d}-{len(self.records)}"
            writer.finish(self.path / name)
            self.records[name] = BatchRecord(self.path / name)


class _BatchWriter:
    """Writes a batch into a temporary folder, which is renamed when it is complete."""

    def __init__(self, root: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=root))
        self._requests = (self.folder / "requests.jsonl").open("wb")
        self._ids = (self.folder / "ids.txt").open("w", encoding="utf-8")
        self._sha256 = hashlib.sha256()
        self.count = self.size = 0

    def write(self, request_id: str, line: bytes) -> None:
        self._requests.write(line)
        self._ids.write(request_id + "\n")
        self._sha256.update(line)
        self.count += 1
        self.size += len(line)

    def finish(self, destination: Path) -> None:
        # Synced before the rename, so that a batch is complete even after a power cut.
        for file in (self._requests, self._ids):
            file.flush()
            os.fsync(file.fileno())
            file.close()
        state = BatchState(requests=self.count, sha256=self._sha256.hexdigest())
        (self.folder / "batch.json").write_text(json.dumps(asdict(state), indent=1), encoding="utf-8")
        self.folder.chmod(0o755)  # mkdtemp makes it private, but another user's program may write the results
        self.folder.rename(destination)
