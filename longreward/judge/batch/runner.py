"""Collect requests into batches, run the batches on the server, and distribute the results.

round 1    extraction, statements, ratings      sent when no further request arrives
round 2    support, completeness, and the requests of round 1 whose replies are missing or unreadable
round 3    …

A round starts when no request has arrived for `settle_s`, and takes all requests that wait then. Requests that an
interrupted run has sent are not sent again: they are found in the folder, and their batches are awaited.
"""

import asyncio
import logging
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from longreward.errors import BatchPending, JudgeUnavailable, LongRewardError
from longreward.judge.batch.api import BatchQueueFull, BatchRefused, BatchServer, BatchStatus
from longreward.judge.batch.storage import BatchFolder, BatchRecord, BatchResult, missing_result
from longreward.judge.config import BatchConfig
from longreward.utils.plurals import pluralize

T = TypeVar("T")

log = logging.getLogger(__name__)

MAX_OUTAGE_S = 3600.0  # of a server that cannot be reached, or whose queue is full
SETTLE_STEPS = 10
MAX_LISTED_FILES = 10


class BatchRunner:
    """Submits the batches of a folder, polls them and downloads their results."""

    def __init__(self, folder: BatchFolder, server: BatchServer, config: BatchConfig) -> None:
        self._folder = folder
        self._server = server
        self._config = config
        self._statuses: dict[str, BatchStatus] = {}
        self._running: list[BatchRecord] = []

    async def poll(self, records: Sequence[BatchRecord]) -> AsyncIterator[BatchRecord]:
        """Yield each batch when its results are on disk, in the order in which they finish.

        Raises JudgeRefused if the server rejects a batch, JudgeUnavailable if it cannot be reached, or its queue is
        full, for MAX_OUTAGE_S.
        """
        self._running = list(records)
        full_s = 0.0
        while self._running:
            queue_full: BatchQueueFull | None = None
            for record in list(self._running):
                try:
                    finished = await self._advance(record)
                except BatchQueueFull as error:
                    queue_full = error
                    continue
                if finished:
                    self._running.remove(record)
                    full_s = 0.0
                    yield record
            # While another batch of ours runs, the queue will have room when that one ends, however long it takes.
            is_blocked = queue_full is not None and not any(record.state.batch_id for record in self._running)
            full_s = full_s + self._config.poll_s if is_blocked else 0.0
            if queue_full is not None and full_s > MAX_OUTAGE_S:
                raise queue_full
            if self._running:
                await asyncio.sleep(self._config.poll_s)

    def detach(self) -> None:
        """Log the batches that continue on the server after this run ends."""
        ids = [record.state.batch_id for record in self._running if record.state.batch_id]
        if ids:
            message = "%d batch(es) continue at the %s: %s; the next run with these settings collects their replies"
            log.warning(message, len(ids), self._server.description, ", ".join(ids))
        self._running = []

    async def _advance(self, record: BatchRecord) -> bool:
        """Submit the batch if necessary and check its status once; return whether its results are on disk."""
        if record.has_results:
            return True
        if record.state.batch_id is None:
            await self._retry(lambda: self._server.submit(record))
            log.info(
                "sent %s requests to the %s as batch %s; polling every %g s",
                f"{record.state.requests:,}",
                self._server.description,
                record.state.batch_id,
                self._config.poll_s,
            )
        try:
            status = await self._retry(lambda: self._server.status(record))
        except BatchQueueFull:
            # The server creates the batch first and rejects it later, so it has to be submitted again.
            record.update(batch_id=None, submitting=False)
            raise
        except BatchRefused:
            # None of its requests will be processed, so the next run must not wait for it.
            self._folder.remove(record)
            raise
        if status != self._statuses.get(record.folder.name):
            log.info(
                "batch %s at the %s: %s %s",
                record.state.batch_id,
                self._server.description,
                status.status,
                status.message,
            )
            self._statuses[record.folder.name] = status
        if status.ended:
            await self._retry(lambda: self._server.download(record, status))
        return status.ended

    async def _retry(self, call: Callable[[], Awaitable[T]]) -> T:
        """Repeat a call while the server cannot be reached: the batch itself continues meanwhile."""
        waited_s = 0.0
        while True:
            try:
                return await call()
            except BatchQueueFull:
                raise
            except JudgeUnavailable:
                if waited_s >= MAX_OUTAGE_S:
                    raise
            await asyncio.sleep(self._config.poll_s)
            waited_s += self._config.poll_s


@dataclass
class _PendingRequest:
    result: "asyncio.Future[BatchResult]"
    line: Callable[[], bytes]
    """Returns the line of a request file."""
    waiters: int = 0


class BatchScheduler:
    """Collects all requests to one model on one server into rounds of batches.

    Args:
        folder: the batches on disk.
        runner: runs the batches on a server; None leaves the files for another program.
        config: the section `judge.batch`.
        max_bytes: largest size of a file.
    """

    def __init__(self, folder: BatchFolder, runner: BatchRunner | None, config: BatchConfig, *, max_bytes: int) -> None:
        self._folder = folder
        self._runner = runner
        self._config = config
        self._max_bytes = max_bytes
        self._pending: dict[str, _PendingRequest] = {}
        self._arrivals = 0
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def submit(self, request_id: str, line: Callable[[], bytes]) -> BatchResult:
        """Return the result of the request; `line` returns its line of a request file.

        Raises the JudgeError family if the batch fails, BatchPending if files wait for another program.
        """
        pending = self._pending.get(request_id)
        if pending is None:
            pending = self._pending[request_id] = _PendingRequest(asyncio.get_running_loop().create_future(), line)
            self._arrivals += 1
            self._arrived.set()
        # The task ends with the first error, which all requests of its round receive; later requests start a new one.
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        pending.waiters += 1
        try:
            # Several callers may wait for one request: the cancellation of one must not cancel the shared result.
            return await asyncio.shield(pending.result)
        finally:
            pending.waiters -= 1
            if pending.waiters == 0 and self._pending.get(request_id) is pending:
                del self._pending[request_id]

    def mark_done(self, request_id: str) -> None:
        """Note that the reply is in the ledger, or that it was unusable and the request will be made again."""
        record = self._folder.find(request_id)
        if record is not None:
            record.mark_done(request_id)

    async def close(self) -> None:
        """Stop waiting. Submitted batches continue on the server, and the next run collects their replies."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._runner is not None:
            self._runner.detach()
        self._folder.close()

    async def _run(self) -> None:
        try:
            while True:
                await self._wait_until_settled()
                records = self._write_batches()
                if self._runner is not None:
                    async for record in self._runner.poll(records):
                        await self._distribute(record)
                    continue
                # Another program processes the files: distribute the results that are there.
                finished = [record for record in records if record.has_results]
                for record in finished:
                    await self._distribute(record)
                if records and not finished:
                    raise BatchPending(manual_instructions(records, model=self._folder.model))
        except Exception as error:
            for pending in self._pending.values():
                if not pending.result.done():
                    pending.result.set_exception(error)
                    pending.result.exception()  # mark as retrieved: a cancelled caller does not await it any more
            self._pending.clear()
            if not isinstance(error, LongRewardError):
                raise

    async def _wait_until_settled(self) -> None:
        """Wait until requests are pending and no further one has arrived for `settle_s`."""
        while True:
            if not self._pending:
                self._arrived.clear()
                await self._arrived.wait()
            arrivals = self._arrivals
            # Several short sleeps instead of a long one: time in which other work blocks the event loop, and no
            # request can arrive, counts only once.
            for _ in range(SETTLE_STEPS):
                await asyncio.sleep(self._config.settle_s / SETTLE_STEPS)
                if self._arrivals != arrivals:
                    break
            else:
                if self._pending:
                    return

    def _write_batches(self) -> list[BatchRecord]:
        """Write the pending requests that are in no batch yet; return all batches with pending requests."""
        self._folder.remove_finished()
        new_requests = [request_id for request_id in self._pending if self._folder.find(request_id) is None]
        self._folder.write(
            ((request_id, self._pending[request_id].line()) for request_id in new_requests),
            max_requests=self._config.requests_per_file,
            max_bytes=self._max_bytes,
        )
        records = {record for request_id in self._pending if (record := self._folder.find(request_id))}
        return sorted(records, key=lambda record: record.folder.name)

    async def _distribute(self, record: BatchRecord) -> None:
        results = await asyncio.to_thread(record.read_results)
        batch = record.state.batch_id or record.folder.name
        missing = missing_result(f"the batch {batch} ended ({record.state.final_status}) without a reply")
        for request_id, pending in self._pending.items():
            if request_id in record.open_ids and not pending.result.done():
                pending.result.set_result(results.get(request_id) or missing)


def manual_instructions(records: Sequence[BatchRecord], *, model: str) -> str:
    """Return the number of open requests, their files, and commands that process them."""
    requests = sum(record.state.requests for record in records)
    lines = [
        f"{pluralize(requests, 'request')} to the judge {model!r} wait in {pluralize(len(records), 'file')} of "
        "OpenAI's batch format. Process each file into results.jsonl in the same folder, then run the same command "
        "again. With vLLM:"
    ]
    for record in records[:MAX_LISTED_FILES]:
        # vLLM writes results as they come, so the file gets its final name when it is complete.
        lines.append(
            f"  cd {shlex.quote(str(record.folder))} && vllm run-batch -i requests.jsonl -o results.part "
            f"--model {shlex.quote(model)} && mv results.part results.jsonl"
        )
    if len(records) > MAX_LISTED_FILES:
        lines.append(f"  … and {len(records) - MAX_LISTED_FILES} more in {records[0].folder.parent}")
    return "\n".join(lines)
