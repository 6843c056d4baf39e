"""Questions collected until nothing else goes on, sent together, and handed back whenever their answers come.

round 1    extraction, statements, ratings      all work waits: they go out, in as many files as the limits ask for
round 2    support, completeness, and of round 1 what got no answer or an unreadable one
round 3    …

A round begins when no question has come for `settle_s`; its questions are those that wait then. What a killed run has
sent is not sent again: its questions are found in the folder, and their batches waited for.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from longreward.errors import BatchPending, LongRewardError
from longreward.judge.batch.config import BatchConfig
from longreward.judge.batch.folder import BatchFolder
from longreward.judge.batch.manual_batch import files_to_answer
from longreward.judge.batch.record import Record
from longreward.judge.batch.results import Result, not_answered
from longreward.judge.batch.runner import BatchRunner
from longreward.judge.batch.spool import Spool


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

    async def _write(self) -> list[Record]:
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

    async def _hand_out(self, records: list[Record]) -> None:
        """Returns once all of them are back; of files for another program, once those that are back are taken in."""
        if self._courier is not None:
            async for record in self._courier.bring(records):
                await self._deliver(record)
            return
        back = [record for record in records if record.back]
        for record in back:
            await self._deliver(record)
        if records and not back:
            raise BatchPending(files_to_answer(records, model=self._folder.model))

    async def _deliver(self, record: Record) -> None:
        async with self._folder.locked():
            answers = await record.answers()
        why = f"the batch {record.facts.batch or record.folder.name} ended ({record.facts.ended}) without an answer"
        for number, name in enumerate([name for name in self._waiting if name in record.open]):
            waiting = self._waiting.get(name)
            if waiting is None:
                continue
            if answers is not None:
                waiting.answer(answers.get(name) or not_answered(why))
            else:
                waiting.answer(_SETTLED if waiting.settled() else _GONE)
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)  # so that few of them are in memory at once
        if answers is not None:
            answers.close()


MEGABYTES = 200.0  # a file (OpenAI's limit)
_TICKS = 10
_AT_ONCE = 100
_SETTLED = not_answered("the ledger has the answer of another process")
_GONE = not_answered("its batch is gone")
