"""The batch runner waits an hour for a provider that is down or full, and any time for one that works on a batch."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from virtual_time import run_in_virtual_time

from longreward.errors import JudgeUnavailable
from longreward.judge.batch.api import BatchQueueFull, BatchStatus
from longreward.judge.batch.runner import BatchRunner
from longreward.judge.batch.storage import BatchFolder, BatchRecord
from longreward.judge.config import BatchConfig

MINUTES = 60.0
COMPLETED = BatchStatus("completed", ended=True)
IN_PROGRESS = BatchStatus("in_progress", ended=False)
FULL = BatchQueueFull("the queue is full")
StatusFunction = Callable[[str, float], BatchStatus | Exception]


class FakeServer:
    """Returns the status that `status_at` gives for a batch id and the time since the start, in seconds."""

    description = "judge 'm'"

    def __init__(self, status_at: StatusFunction, *, down_until: float = 0.0) -> None:
        self._status_at = status_at
        self._down_until = down_until

    async def submit(self, record: BatchRecord) -> None:
        if now() < self._down_until:
            raise JudgeUnavailable("no connection")
        record.update(batch_id=f"batch-{next(iter(record.open_ids))}")

    async def status(self, record: BatchRecord) -> BatchStatus:
        status = self._status_at(record.state.batch_id or "", now())
        if isinstance(status, Exception):
            raise status
        return status

    async def download(self, record: BatchRecord, status: BatchStatus) -> None:
        record.results.write_text("")


def now() -> float:
    return asyncio.get_running_loop().time()


def poll(folder: Path, server: FakeServer, batches: int = 1) -> tuple[list[str], float, str | None]:
    """Return the requests in the order in which their batches finished, the time at the end, and the error."""
    batch_folder = BatchFolder(folder / "l.sqlite", address="a", model="m")
    batch_folder.write([(f"q{n}", b"{}\n") for n in range(batches)], max_requests=1, max_bytes=1000)

    async def run() -> tuple[list[str], float, str | None]:
        finished: list[str] = []
        runner = BatchRunner(batch_folder, server, BatchConfig(poll_s=60.0))  # type: ignore[arg-type]
        try:
            async for record in runner.poll(list(batch_folder.records.values())):
                finished += sorted(record.open_ids)
        except JudgeUnavailable as error:
            return finished, now(), str(error)
        return finished, now(), None

    return run_in_virtual_time(run())


def test_unreachable_provider_is_error_after_one_hour(tmp_path: Path) -> None:
    server = FakeServer(lambda name, time: COMPLETED, down_until=1e9)
    assert poll(tmp_path, server) == ([], 60 * MINUTES, "no connection")


def test_provider_back_within_one_hour_processes_batch(tmp_path: Path) -> None:
    server = FakeServer(lambda name, time: COMPLETED, down_until=59 * MINUTES)
    assert poll(tmp_path, server) == (["q0"], 59 * MINUTES, None)


def test_full_queue_is_error_after_one_hour(tmp_path: Path) -> None:
    finished, end, error = poll(tmp_path, FakeServer(lambda name, time: FULL))
    assert (finished, error) == ([], "the queue is full")
    assert 60 * MINUTES <= end <= 62 * MINUTES


def test_full_queue_is_no_error_while_another_batch_runs(tmp_path: Path) -> None:
    def status_at(name: str, time: float) -> BatchStatus | Exception:
        if name == "batch-q0":
            return IN_PROGRESS if time < 180 * MINUTES else COMPLETED
        return FULL if time < 181 * MINUTES else COMPLETED

    assert poll(tmp_path, FakeServer(status_at), batches=2) == (["q0", "q1"], 181 * MINUTES, None)


def test_hour_restarts_when_batch_finishes(tmp_path: Path) -> None:
    def status_at(name: str, time: float) -> BatchStatus | Exception:
        return FULL if time < (50 if name == "batch-q0" else 105) * MINUTES else COMPLETED

    assert poll(tmp_path, FakeServer(status_at), batches=2) == (["q0", "q1"], 105 * MINUTES, None)
