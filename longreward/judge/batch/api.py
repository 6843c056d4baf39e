"""The files and batches of a provider, through the `openai` library."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from longreward.errors import JudgeError, JudgeRefused, JudgeUnavailable
from longreward.judge.batch.storage import BatchRecord
from longreward.utils.http_errors import CONNECT_TIMEOUT_S, ErrorMapper

if TYPE_CHECKING:
    from openai import AsyncOpenAI

T = TypeVar("T")

READ_TIMEOUT_S = 600.0  # a server may check a large upload for minutes before it sends the first byte
MAX_LISTED_BATCHES = 1000  # searched for a batch whose id was lost
FINAL_STATUSES = ("completed", "expired", "cancelled")


class BatchRefused(JudgeRefused):
    """The server rejects the batch as a whole; none of its requests is processed."""


class BatchQueueFull(JudgeUnavailable):
    """The account's limit of queued tokens is reached; the batch can be submitted later."""


@dataclass(frozen=True)
class BatchStatus:
    """The status of a batch on the server."""

    status: str  # such as "in_progress"
    ended: bool
    files: tuple[str, ...] = ()
    """Ids of the files with results and errors, if the batch has ended."""
    message: str = ""


class BatchServer:
    """The batch interface of a provider for one model."""

    def __init__(self, client: "AsyncOpenAI", errors: ErrorMapper, *, endpoint: str, max_retries: int) -> None:
        from openai import Timeout

        self._client = client.with_options(
            max_retries=max_retries, timeout=Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        )
        self._errors = errors
        self._endpoint = endpoint

    @property
    def description(self) -> str:
        """The model and the address, for messages."""
        return self._errors.server

    async def submit(self, record: BatchRecord) -> None:
        """Upload the requests and create the batch, unless an earlier attempt has created it.

        Raises JudgeRefused or JudgeUnavailable.
        """
        if record.state.submitting and (batch_id := await self._find_existing(_batch_name(record))):
            record.update(batch_id=batch_id)
            return
        record.update(submitting=True)
        file_id = await self._call(lambda: self._upload(record))
        batch_id = await self._call(lambda: self._create(file_id, record))
        record.update(batch_id=batch_id)

    async def status(self, record: BatchRecord) -> BatchStatus:
        """Return the status of a submitted batch.

        Raises BatchQueueFull, BatchRefused, or JudgeRefused if the server does not know the batch.
        """
        batch_id = record.state.batch_id
        assert batch_id is not None
        missing_error = JudgeRefused(
            f"the {self.description} does not know the batch {batch_id} (was it created with another key?); remove "
            f"{record.folder} to make its {record.state.requests:,} requests again"
        )
        batch = await self._call(lambda: self._client.batches.retrieve(batch_id), missing_error=missing_error)
        status = str(batch.status).lower()  # some providers write it in capitals
        if status == "failed":
            errors = (batch.errors.data if batch.errors else None) or []
            messages = "; ".join(str(error.message or error.code) for error in errors) or "no reason"
            reason = self._errors.sanitize(messages)
            if any("limit" in str(error.code) for error in errors):
                raise BatchQueueFull(
                    f"the {self.description} does not accept a batch of this size now: {reason}; lower "
                    "judge.batch.prompts or judge.batch.megabytes_per_file"
                )
            raise BatchRefused(
                f"the {self.description} refused the batch {batch.id}: {reason}; check judge.model and its fields"
            )
        counts = batch.request_counts
        message = f"{counts.completed} of {counts.total}" if counts else ""
        files = tuple(file for file in (batch.output_file_id, batch.error_file_id) if file)
        return BatchStatus(status, status in FINAL_STATUSES, files, message)

    async def download(self, record: BatchRecord, status: BatchStatus) -> None:
        """Write the results of an ended batch beside its requests."""
        temporary = record.results.with_suffix(".part")
        with temporary.open("wb") as results:
            for file_id in status.files:
                start = results.tell()

                async def download_file(file_id: str = file_id, start: int = start) -> None:
                    results.seek(start)  # drop what an earlier attempt wrote
                    results.truncate()
                    async with self._client.files.with_streaming_response.content(file_id) as response:
                        async for chunk in response.iter_bytes():
                            results.write(chunk)

                await self._call(download_file)
                results.write(b"\n")
        temporary.replace(record.results)
        record.update(final_status=status.status)

    async def _upload(self, record: BatchRecord) -> str:
        with record.requests.open("rb") as requests:
            file = await self._client.files.create(file=(f"{_batch_name(record)}.jsonl", requests), purpose="batch")
        return file.id

    async def _create(self, file_id: str, record: BatchRecord) -> str:
        endpoint: Any = self._endpoint  # the library's type lists OpenAI's endpoints only
        # No retries: a repeated request could create, and bill, a second batch. If the confirmation is lost, the batch
        # is found by its name instead.
        batch = await self._client.with_options(max_retries=0).batches.create(
            input_file_id=file_id,
            endpoint=endpoint,
            completion_window="24h",
            metadata={"longreward": _batch_name(record)},
        )
        return batch.id

    async def _find_existing(self, name: str) -> str | None:
        """Return the id of the batch of this name, if the server lists it."""

        async def search() -> str | None:
            count = 0
            async for batch in self._client.batches.list(limit=100):
                count += 1
                if (batch.metadata or {}).get("longreward") == name and str(batch.status).lower() != "failed":
                    return batch.id
                if count >= MAX_LISTED_BATCHES:
                    break
            return None

        try:
            return await self._call(search)
        except JudgeRefused:  # the server cannot list batches
            return None

    async def _call(self, call: Callable[[], Awaitable[T]], *, missing_error: JudgeError | None = None) -> T:
        """Run a call of the library and translate its errors; `missing_error` is raised for 404."""
        from openai import APIError, APIStatusError

        error: JudgeError
        try:
            return await call()
        except APIStatusError as status_error:
            if status_error.status_code in (404, 405):
                error = missing_error or JudgeRefused(
                    f"the {self.description} has no batches ({status_error.status_code} at "
                    f"{status_error.request.url.path}); set judge.mode to live, or to batch_files if another program "
                    "processes the files"
                )
            else:
                error = self._errors.from_exception(status_error)
        except APIError as api_error:
            error = self._errors.from_exception(api_error)
        raise error  # outside of the except block: the library's error holds the request with the API key


def _batch_name(record: BatchRecord) -> str:
    return f"{record.folder.name}-{record.state.sha256[:12]}"
