"""One batch as it lies on the disk.

<time>-<n>/
    requests.jsonl           the questions in OpenAI's format
    ids.txt                  their ids, one a line
    batch.json               what is known of it (`Facts`)
    results*.jsonl           what came back, in any order
    done.txt                 ids that the ledger has an answer to, or that are to be asked anew
"""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from longreward.errors import StateError
from longreward.judge.batch.results import ResultFiles
from longreward.utils.jsonl import writing


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
        with disk_faults(self.folder), suppress(FileNotFoundError), self._done.open("a", encoding="utf-8") as file:
            file.write(name + "\n")

    async def answers(self) -> ResultFiles | None:
        """What came back; None where the batch is removed. To be called with the lock held."""
        if not self.there:
            return None
        return await asyncio.to_thread(ResultFiles, sorted(self.folder.glob("results*.jsonl")))

    def _read(self) -> Facts:
        file = self.folder / "batch.json"
        try:
            return Facts(**json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            raise StateError(f"{file} is damaged; remove {self.folder} to ask its questions anew") from None


@contextmanager
def disk_faults(path: Path) -> Iterator[None]:
    """What the disk refuses, as an error of ours."""
    try:
        yield
    except OSError as error:
        raise StateError(
            f"{path}: {error.strerror or error}; make room or give write permission, then run the same again"
        ) from error
