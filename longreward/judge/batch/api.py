"""A provider's files and batches, through the `openai` library.

The library retries what may pass, save for the making of a batch: a repeated request could make, and cost, a second
one. So each batch carries a name of ours, by which one is found whose making was not confirmed.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from longreward.errors import JudgeError, JudgeRefused, JudgeUnavailable
from longreward.judge.batch.storage import BatchRecord
from longreward.utils.http_errors import CONNECT_TIMEOUT_S

if TYPE_CHECKING:
    from openai.types import Batch

    from longreward.judge.batch.client import BatchJudge

T = TypeVar("T")


class BatchRefused(JudgeRefused):
    """The batch as a whole is not taken: nothing of it was answered, and nothing of it will be."""


class BatchQueueFull(JudgeUnavailable):
    """The account may not have so many tokens queued at once: to be sent again later."""


@dataclass(frozen=True)
class BatchStatus:
    """How a batch is doing."""

    status: str  # "in_progress", …
    ended: bool
    files: tuple[str, ...] = ()  # of answers and of errors, once it has ended
    told: str = ""


class BatchServer:
    """Where the batches of one model go."""

    def __init__(self, judge: "BatchJudge", *, endpoint: str, max_retries: int) -> None:
        from openai import Timeout

        self._judge = judge
        self._client = judge.client.with_options(
            max_retries=max_retries, timeout=Timeout(PATIENT_S, connect=CONNECT_TIMEOUT_S)
        )
        self._endpoint = endpoint

    @property
    def where(self) -> str:
        """For people."""
        return self._judge.server

    async def submit(self, record: BatchRecord) -> None:
        """Sends the batch, unless an earlier try has done so. Raises JudgeRefused or JudgeUnavailable."""
        if record.facts.attempted and (there := await self._find(_name(record))):
            record.learn(batch=there)
            return
        record.learn(attempted=True)
        file = await self._calling(lambda: self._upload(record))
        batch = await self._calling(lambda: self._make(file, record))
        record.learn(batch=batch)

    async def look(self, record: BatchRecord) -> BatchStatus:
        """Raises NoRoom where the queue is full, BatchRefused or, of a batch that is not known, JudgeRefused."""
        name = record.facts.batch
        assert name is not None, "it was submitted"
        found = await self._calling(lambda: self._client.batches.retrieve(name), unknown=self._lost(record))
        status = str(found.status).lower()
        if status == "failed":
            raise self._refusal(found)
        counts = found.request_counts
        told = f"{counts.completed} of {counts.total}" if counts else ""
        files = tuple(each for each in (found.output_file_id, found.error_file_id) if each)
        return BatchStatus(status, status in _ENDED, files, told)

    async def fetch(self, record: BatchRecord, look: BatchStatus) -> None:
        """Puts the results beside the requests; from then on the server is not needed for them."""
        part = record.results.with_suffix(".part")
        with part.open("wb") as results:
            for file in look.files:
                start = results.tell()

                async def download(file: str = file, start: int = start) -> None:
                    results.seek(start)
                    results.truncate()
                    async with self._client.files.with_streaming_response.content(file) as reply:
                        async for chunk in reply.iter_bytes():
                            results.write(chunk)

                await self._calling(download)
                results.write(b"\n")
        part.replace(record.results)
        record.learn(ended=look.status)

    async def _upload(self, record: BatchRecord) -> str:
        with record.requests.open("rb") as requests:  # streamed
            sent = await self._client.files.create(file=(f"{_name(record)}.jsonl", requests), purpose="batch")
        return sent.id

    async def _make(self, file: str, record: BatchRecord) -> str:
        endpoint: Any = self._endpoint  # not every server's is in the library's list
        made = await self._client.with_options(max_retries=0).batches.create(
            input_file_id=file,
            endpoint=endpoint,
            completion_window="24h",
            metadata={"longreward": _name(record)},
        )
        return made.id

    async def _find(self, name: str) -> str | None:
        """The batch of this name, among the latest; None too where the server lists none."""

        async def look() -> str | None:
            seen = 0
            async for batch in self._client.batches.list(limit=100):
                seen += 1
                if (batch.metadata or {}).get("longreward") == name and str(batch.status).lower() != "failed":
                    return batch.id
                if seen >= _LATEST:
                    break
            return None

        try:
            return await self._calling(look)
        except JudgeRefused:
            return None

    async def _calling(self, call: Callable[[], Awaitable[T]], *, unknown: JudgeError | None = None) -> T:
        from openai import APIError, APIStatusError

        fault: JudgeError
        try:
            return await call()
        except APIStatusError as error:
            if error.status_code in (404, 405):
                fault = unknown or JudgeRefused(
                    f"the {self.where} has no batches ({error.status_code} at {error.request.url.path}); set "
                    "judge.mode to live, or to batch_files where another program answers the files"
                )
            else:
                fault = self._judge.errors.from_exception(error)
        except APIError as error:
            fault = self._judge.errors.from_exception(error)
        raise fault  # outside the except: the library's error holds the request with its headers

    def _lost(self, record: BatchRecord) -> JudgeError:
        return JudgeRefused(
            f"the {self.where} does not know the batch {record.facts.batch} any more (was it made with another key?); "
            f"remove {record.folder} to ask its {record.facts.requests:,} questions anew"
        )

    def _refusal(self, batch: "Batch") -> JudgeError:
        errors = (batch.errors.data if batch.errors else None) or []
        said = self._judge.errors.sanitize("; ".join(str(each.message or each.code) for each in errors) or "no reason")
        if any("limit" in str(each.code) for each in errors):
            return BatchQueueFull(
                f"the {self.where} takes no batch of this size now: {said}; lower judge.batch.prompts or "
                "judge.batch.megabytes_per_file"
            )
        return BatchRefused(f"the {self.where} refused the batch {batch.id}: {said}; check judge.model and its fields")


def _name(record: BatchRecord) -> str:
    return f"{record.folder.name}-{record.facts.sha256[:12]}"


_ENDED = ("completed", "expired", "cancelled")
PATIENT_S = 600.0  # without a byte: a server may look at a large file for long
_LATEST = 1000  # batches to look through for one of ours
