"""One batch to its server and back: sent once, looked at, fetched, by whichever process comes first."""

import asyncio
import logging
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from longreward.errors import BatchPending, JudgeUnavailable, LongRewardError
from longreward.judge.batch.api import BatchQueueFull, BatchRefused, BatchServer, BatchStatus
from longreward.judge.batch.config import BatchConfig
from longreward.judge.batch.storage import BatchFolder, BatchRecord, Result, Spool, missing_result

T = TypeVar("T")

log = logging.getLogger(__name__)


class BatchRunner:
    """Takes the batches of one folder to their server."""

    def __init__(self, folder: BatchFolder, server: BatchServer, config: BatchConfig) -> None:
        self._folder = folder
        self._server = server
        self._config = config
        self._seen: dict[str, BatchStatus] = {}
        self._under_way: list[BatchRecord] = []  # sent, or to be sent, and not yet back

    async def bring(self, records: Sequence[BatchRecord]) -> AsyncIterator[BatchRecord]:
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

    async def _is_back(self, record: BatchRecord) -> bool:
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

    async def _send(self, record: BatchRecord) -> None:
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

    async def _fetch(self, record: BatchRecord, look: BatchStatus) -> None:
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


# Questions collected until nothing else goes on, sent together, and handed back whenever their answers come.
#
# round 1    extraction, statements, ratings      all work waits: they go out, in as many files as the limits ask for
# round 2    support, completeness, and of round 1 what got no answer or an unreadable one
# round 3    …
#
# A round begins when no question has come for `settle_s`; its questions are those that wait then. What a killed run has
# sent is not sent again: its questions are found in the folder, and their batches waited for.


@dataclass
class _Waiting:
    """A question that waits for its result."""

    result: "asyncio.Future[Result]"
    place: tuple[int, int] | None  # in the spool; None: a batch holds it
    settled: Callable[[], bool]  # whether another process has got its answer meanwhile
    askers: int = 0

    def answer(self, result: Result) -> None:
        if not self.result.done():
            self.result.set_result(result)


class BatchScheduler:
    """All questions to one model on one server. `courier` None: the files are left for another program."""

    def __init__(self, folder: BatchFolder, courier: BatchRunner | None, config: BatchConfig) -> None:
        self._folder = folder
        self._courier = courier
        self._config = config
        self._spool = Spool(folder.path)
        self._waiting: dict[str, _Waiting] = {}
        self._asked = 0
        self._came = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None

    async def ask(self, name: str, line: Callable[[], bytes], settled: Callable[[], bool]) -> Result | None:
        """What came of the question; None where another process has its answer in the ledger by now.

        Raises the JudgeError family where its batch cannot be had, AnswersAwaited where files wait to be answered.
        """
        waiting = self._waiting.get(name)
        if waiting is None:
            place = None if self._folder.holding(name) else self._spool.put(line())
            waiting = _Waiting(asyncio.get_running_loop().create_future(), place, settled)
            self._waiting[name] = waiting
            self._asked += 1
            self._came.set()
        if self._loop is None or self._loop.done():
            self._loop = asyncio.create_task(self._run())
        waiting.askers += 1
        try:
            found = await asyncio.shield(waiting.result)
            return None if found is _SETTLED else found
        finally:
            waiting.askers -= 1
            if waiting.askers == 0 and self._waiting.get(name) is waiting:
                del self._waiting[name]

    def settle(self, name: str) -> None:
        """The ledger has its answer, or none came that is of use and it will be asked again."""
        record = self._folder.holding(name)
        if record is not None:
            record.settle(name)

    async def close(self) -> None:
        """Stops waiting. What was sent goes on at the server, and the next run takes it in."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
            self._loop = None
        if self._courier is not None:
            self._courier.leave()
        async with self._folder.locked():
            self._folder.clear()
        self._spool.close()

    async def _run(self) -> None:
        try:
            while True:
                await self._until_settled()
                await self._hand_out(await self._write())
        except Exception as error:
            for waiting in self._waiting.values():
                if not waiting.result.done():
                    waiting.result.set_exception(error)
                    waiting.result.exception()  # a failure that nobody waits for any more is no news
            self._waiting.clear()
            if not isinstance(error, LongRewardError):
                raise

    async def _until_settled(self) -> None:
        """Until some question waits, and for `settle_s` none has come."""
        while True:
            if not self._waiting:
                self._came.clear()
                await self._came.wait()
            asked = self._asked
            for _ in range(_TICKS):  # of a loop that goes round: work that holds it up does not count
                await asyncio.sleep(self._config.settle_s / _TICKS)
                if self._asked != asked:
                    break
            else:
                if self._waiting:
                    return

    async def _write(self) -> list[BatchRecord]:
        """The batches that hold the questions which wait now; those that none holds are written into new ones."""
        async with self._folder.locked():
            self._folder.refresh()
            self._folder.clear()
            self._folder.write(
                self._fresh(),
                most=self._config.requests_per_file,
                most_bytes=int((self._config.megabytes_per_file or MEGABYTES) * 1_000_000),
            )
        self._spool.clear()
        held = {name: record for name in self._waiting if (record := self._folder.holding(name))}
        return sorted(set(held.values()), key=lambda record: record.folder.name)

    def _fresh(self) -> Iterator[tuple[str, bytes]]:
        for name, waiting in list(self._waiting.items()):
            held = self._folder.holding(name)
            if waiting.place is None and held is None:  # of another process, which has taken it in
                waiting.answer(_SETTLED if waiting.settled() else _GONE)
            elif waiting.settled():
                waiting.answer(_SETTLED)
            elif waiting.place is not None and held is None:
                yield name, self._spool.get(waiting.place)
            waiting.place = None

    async def _hand_out(self, records: list[BatchRecord]) -> None:
        """Returns once all of them are back; of files for another program, once those that are back are taken in."""
        if self._courier is not None:
            async for record in self._courier.bring(records):
                await self._deliver(record)
            return
        back = [record for record in records if record.back]
        for record in back:
            await self._deliver(record)
        if records and not back:
            raise BatchPending(manual_instructions(records, model=self._folder.model))

    async def _deliver(self, record: BatchRecord) -> None:
        async with self._folder.locked():
            answers = await record.answers()
        why = f"the batch {record.facts.batch or record.folder.name} ended ({record.facts.ended}) without an answer"
        for number, name in enumerate([name for name in self._waiting if name in record.open]):
            waiting = self._waiting.get(name)
            if waiting is None:
                continue
            if answers is not None:
                waiting.answer(answers.get(name) or missing_result(why))
            else:
                waiting.answer(_SETTLED if waiting.settled() else _GONE)
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)  # so that few of them are in memory at once
        if answers is not None:
            answers.close()


MEGABYTES = 200.0  # a file (OpenAI's limit)
_TICKS = 10
_AT_ONCE = 100
_SETTLED = missing_result("the ledger has the answer of another process")
_GONE = missing_result("its batch is gone")


# What to tell the person who is to have files of questions answered by another program.


def manual_instructions(records: Sequence[BatchRecord], *, model: str) -> str:
    """How many questions wait, in which files, and a command that answers them."""
    questions = sum(record.facts.requests for record in records)
    said = [
        f"{questions:,} questions to the judge {model!r} wait in {len(records)} file(s) of OpenAI's batch format. Have "
        "each answered into the folder where it lies, as results.jsonl, and run the same again. With vLLM:"
    ]
    said += [f"  {_command(record, model)}" for record in records[:_SHOWN]]
    if len(records) > _SHOWN:
        said.append(f"  … and {len(records) - _SHOWN} more in {records[0].folder.parent}")
    return "\n".join(said)


def _command(record: BatchRecord, model: str) -> str:
    """Results get their name when all are there: vLLM writes them as they come."""
    folder = shlex.quote(str(record.folder))
    return (
        f"cd {folder} && vllm run-batch -i requests.jsonl -o results.part --model {shlex.quote(model)} "
        "&& mv results.part results.jsonl"
    )


_SHOWN = 10
