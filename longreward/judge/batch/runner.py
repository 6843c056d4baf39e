"""One batch to its server and back: sent once, looked at, fetched, by whichever process comes first."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from longreward.errors import JudgeUnavailable
from longreward.judge.batch.api import BatchQueueFull, BatchRefused, BatchServer, BatchStatus
from longreward.judge.batch.config import BatchConfig
from longreward.judge.batch.folder import BatchFolder
from longreward.judge.batch.record import Record

T = TypeVar("T")

log = logging.getLogger(__name__)


class BatchRunner:
    """Takes the batches of one folder to their server."""

    def __init__(self, folder: BatchFolder, server: BatchServer, config: BatchConfig) -> None:
        self._folder = folder
        self._server = server
        self._config = config
        self._seen: dict[str, BatchStatus] = {}
        self._under_way: list[Record] = []  # sent, or to be sent, and not yet back

    async def bring(self, records: Sequence[Record]) -> AsyncIterator[Record]:
        """Each batch once its results are there, whichever comes first.

        Raises JudgeRefused where the server takes none of a batch, JudgeUnavailable where it cannot be reached, or has
        no room, for PATIENCE_S.
        """
        self._under_way = list(records)
        full_s = 0.0
        while self._under_way:
            full: BatchQueueFull | None = None
            for record in list(self._under_way):
                try:
                    back = await self._is_back(record)
                except BatchQueueFull as error:
                    full = error
                    continue
                if back:
                    self._under_way.remove(record)
                    full_s = 0.0
                    yield record
            waits = full is not None and not any(record.facts.batch for record in self._under_way)
            full_s = full_s + self._config.poll_s if waits else 0.0
            if full is not None and full_s > PATIENCE_S:
                raise full
            if self._under_way:
                await asyncio.sleep(self._config.poll_s)

    def leave(self) -> None:
        """Says which batches go on at the server without us."""
        names = [record.facts.batch for record in self._under_way if record.facts.batch]
        if names:
            told = "%d batch(es) go on at the %s: %s; the same run again takes their answers in"
            log.warning(told, len(names), self._server.where, ", ".join(names))
        self._under_way = []

    async def _is_back(self, record: Record) -> bool:
        """One look at the batch, which is sent where that has not been done; whether its results are there."""
        await self._patiently(lambda: self._send(record))
        if record.back or not record.there:
            return True
        try:
            look = await self._patiently(lambda: self._server.look(record))
        except BatchQueueFull:
            record.learn(batch=None, attempted=False)
            raise
        except BatchRefused:
            self._folder.remove(record)
            raise
        if look != self._seen.get(record.folder.name):
            log.info("batch %s at the %s: %s %s", record.facts.batch, self._server.where, look.status, look.told)
            self._seen[record.folder.name] = look
        if look.ended:
            await self._patiently(lambda: self._fetch(record, look))
        return look.ended

    async def _send(self, record: Record) -> None:
        if record.facts.batch is not None or record.back:
            return
        async with self._folder.locked():
            if not record.there:
                return
            record.refresh()
            if record.facts.batch is None:
                await self._server.submit(record)
                log.info(
                    "%s questions are sent to the %s as batch %s; looked at every %g s",
                    f"{record.facts.requests:,}",
                    self._server.where,
                    record.facts.batch,
                    self._config.poll_s,
                )

    async def _fetch(self, record: Record, look: BatchStatus) -> None:
        async with self._folder.locked():
            if record.there and not record.back:
                await self._server.fetch(record, look)

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """What `call` gives, tried again while the server cannot be reached: a batch goes on without us."""
        waited = 0.0
        while True:
            try:
                return await call()
            except BatchQueueFull:
                raise
            except JudgeUnavailable:
                if waited >= PATIENCE_S:
                    raise
            await asyncio.sleep(self._config.poll_s)
            waited += self._config.poll_s


PATIENCE_S = 3600.0  # of a server that cannot be reached, or has no room
