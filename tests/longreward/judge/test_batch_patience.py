"""How long batches wait for a provider: an hour without a connection or room, however long for one that works."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

from virtual_time import run_in_virtual_time

from longreward.errors import JudgeUnavailable
from longreward.judge.batch.api import BatchQueueFull, BatchStatus
from longreward.judge.batch.config import BatchConfig
from longreward.judge.batch.runner import BatchRunner
from longreward.judge.batch.storage import BatchFolder, BatchRecord, ResultFiles

MINUTES = 60.0
Behave = Callable[[str, float], BatchStatus | Exception]


class Provider:
    """Does as `behave` says of a batch's name and the time since the start, in seconds."""

    where = "judge 'm'"

    def __init__(self, behave: Behave, *, down_until: float = 0.0) -> None:
        self._behave, self._down_until = behave, down_until

    async def submit(self, record: BatchRecord) -> None:
        if now() < self._down_until:
            raise JudgeUnavailable("no connection")
        record.learn(batch=f"batch-{next(iter(record.open))}")

    async def look(self, record: BatchRecord) -> BatchStatus:
        found = self._behave(record.facts.batch or "", now())
        if isinstance(found, Exception):
            raise found
        return found

    async def fetch(self, record: BatchRecord, look: BatchStatus) -> None:
        record.results.write_text("")


def now() -> float:
    return asyncio.get_running_loop().time()


def bring(folder: Path, server: Provider, batches: int = 1) -> tuple[list[str], float, str | None]:
    """Which batches came back in which order, when that ended, and with which error."""
    files = BatchFolder(folder / "l.sqlite", address="a", model="m")
    files.write([(f"q{n}", b"{}\n") for n in range(batches)], most=1, most_bytes=1000)

    async def run() -> tuple[list[str], float, str | None]:
        back: list[str] = []
        courier = BatchRunner(files, server, BatchConfig(poll_s=60.0))  # type: ignore[arg-type]
        try:
            async for record in courier.bring(list(files.records.values())):
                back += sorted(record.open)
        except JudgeUnavailable as error:
            return back, now(), str(error)
        return back, now(), None

    return run_in_virtual_time(run())


def done(name: str, at: float) -> BatchStatus:
    return BatchStatus("completed", ended=True)


def test_a_provider_that_cannot_be_reached_is_waited_for_an_hour(tmp_path: Path) -> None:
    assert bring(tmp_path, Provider(done, down_until=1e9)) == ([], 60 * MINUTES, "no connection")


def test_one_that_comes_back_before_the_hour_is_over_takes_the_batch(tmp_path: Path) -> None:
    assert bring(tmp_path, Provider(done, down_until=59 * MINUTES)) == (["q0"], 59 * MINUTES, None)


def test_a_queue_without_room_is_waited_for_an_hour(tmp_path: Path) -> None:
    back, ended, error = bring(tmp_path, Provider(lambda name, at: BatchQueueFull("the queue is full")))
    assert (back, error) == ([], "the queue is full")
    assert 60 * MINUTES <= ended <= 62 * MINUTES


def test_a_batch_waits_for_room_as_long_as_another_one_works(tmp_path: Path) -> None:
    """The first takes three hours, and the queue holds one at a time."""

    def behave(name: str, at: float) -> BatchStatus | Exception:
        if name == "batch-q0":
            return (
                BatchStatus("in_progress", ended=False) if at < 180 * MINUTES else BatchStatus("completed", ended=True)
            )
        return BatchQueueFull("the queue is full") if at < 181 * MINUTES else BatchStatus("completed", ended=True)

    assert bring(tmp_path, Provider(behave), batches=2) == (["q0", "q1"], 181 * MINUTES, None)


def test_the_hour_without_room_begins_anew_when_a_batch_came_back(tmp_path: Path) -> None:
    def behave(name: str, at: float) -> BatchStatus | Exception:
        if name == "batch-q0":
            return BatchQueueFull("the queue is full") if at < 50 * MINUTES else BatchStatus("completed", ended=True)
        return BatchQueueFull("the queue is full") if at < 105 * MINUTES else BatchStatus("completed", ended=True)

    assert bring(tmp_path, Provider(behave), batches=2) == (["q0", "q1"], 105 * MINUTES, None)


def line(name: str, said: str | None, status: int = 200) -> str:
    reply = None if said is None else {"status_code": status, "body": {"said": said}}
    return json.dumps({"custom_id": name, "response": reply, "error": None if reply else {"message": "expired"}})


def test_of_two_results_with_one_id_an_answer_counts_before_a_failure_and_the_later_answer_before_the_earlier(
    tmp_path: Path,
) -> None:
    """As two programs leave that answered parts of one file."""
    one, two = tmp_path / "results-1.jsonl", tmp_path / "results-2.jsonl"
    one.write_text(
        "\n".join([line("a", "first"), line("b", None), line("c", "kept"), line("d", "busy", 503), line("a", "second")])
    )
    two.write_text("\n".join([line("c", None), line("b", "late"), line("d", None), line("c", "no", 500)]))
    results = ResultFiles([one, two])
    found = {name: results.get(name) for name in "abcde"}
    results.close()
    said = {name: result and (result.status, json.loads(result.body).get("said")) for name, result in found.items()}
    assert said == {
        "a": (200, "second"),
        "b": (200, "late"),
        "c": (200, "kept"),
        "d": (503, "busy"),  # of failures the first
        "e": None,
    }
