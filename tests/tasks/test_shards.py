"""Work in shards, on a real Prefect server."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from prefect import flow
from pydantic import TypeAdapter

from longreward.errors import ConfigError, JudgeUnavailable
from longreward.records import Evidence
from longreward.tasks.shards import OnProgress, ShardRecords, run_in_shards

pytestmark = pytest.mark.usefixtures("prefect_server")


class Worker:
    """Makes a record of each number; `errors` are errors to raise, one a call, before it does."""

    def __init__(self, *errors: Exception | None) -> None:
        self.errors = list(errors)
        self.calls: list[list[int]] = []

    async def __call__(self, shard: Sequence[int], on_progress: OnProgress) -> list[Evidence]:
        self.calls.append(list(shard))
        if self.errors and (error := self.errors.pop(0)):
            raise error
        return [Evidence(start=number, end=number + 1, text=f"line\n{number} 鹭") for number in shard]


async def run(worker: Worker, folder: Path, *, concurrency: int = 1, limit_s: float | None = None) -> list[int]:
    """Process the numbers 0 to 6 in shards of 3 in a flow; return the records."""

    @flow
    async def counting() -> list[int]:
        records = await run_in_shards(
            "count",
            range(7),
            worker,
            record=Evidence,
            folder=folder,
            size=3,
            concurrency=concurrency,
            limit_s=limit_s,
            retry_after_s=0.01,
        )
        return [record.start for record in records if record.text == f"line\n{record.start} 鹭"]

    return await counting()


async def test_records_are_in_order_with_concurrency(tmp_path: Path) -> None:
    worker = Worker()
    assert await run(worker, tmp_path, concurrency=3) == [0, 1, 2, 3, 4, 5, 6]
    assert sorted(worker.calls) == [[0, 1, 2], [3, 4, 5], [6]]


async def test_finished_shards_kept_after_error(tmp_path: Path) -> None:
    stopped = Worker(None, ConfigError("wrong key"))
    with pytest.raises(ConfigError, match="wrong key"):
        await run(stopped, tmp_path)
    assert stopped.calls == [[0, 1, 2], [3, 4, 5]]  # a wrong setting is not tried again, and the rest not begun

    again = Worker()
    assert await run(again, tmp_path) == [0, 1, 2, 3, 4, 5, 6]
    assert again.calls == [[3, 4, 5], [6]]
    third = Worker()
    assert await run(third, tmp_path) == [0, 1, 2, 3, 4, 5, 6]
    assert third.calls == []


async def test_unavailable_judge_retried(tmp_path: Path) -> None:
    worker = Worker(JudgeUnavailable("busy"), JudgeUnavailable("busy"))
    assert await run(worker, tmp_path) == [0, 1, 2, 3, 4, 5, 6]
    assert worker.calls == [[0, 1, 2], [0, 1, 2], [0, 1, 2], [3, 4, 5], [6]]


async def test_unavailable_judge_raises_after_retries(tmp_path: Path) -> None:
    with pytest.raises(JudgeUnavailable, match="down for good"):
        await run(Worker(*[JudgeUnavailable("down for good")] * 9), tmp_path)


async def test_hanging_shard_retried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_s = 3600.0  # of the event loop's clock, which is set forward: on a busy machine a short one passes by itself

    class Hanging(Worker):
        async def __call__(self, shard: Sequence[int], on_progress: OnProgress) -> list[Evidence]:
            if not self.calls:
                self.calls.append([])
                loop = asyncio.get_running_loop()
                now = loop.time
                with monkeypatch.context() as patch:  # Prefect takes the next deadlines from another clock
                    patch.setattr(loop, "time", lambda: now() + limit_s)
                    await asyncio.Event().wait()
            return await super().__call__(shard, on_progress)

    worker = Hanging()
    assert await run(worker, tmp_path, limit_s=limit_s) == [0, 1, 2, 3, 4, 5, 6]
    assert worker.calls == [[], [0, 1, 2], [3, 4, 5], [6]]


async def test_progress_counts_finished_and_running_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    updates: list[tuple[int, int]] = []

    @contextmanager
    def record_progress(title: str, *, detail: Callable[[], str]) -> Iterator[Callable[[int, int], None]]:
        yield lambda *update: updates.append(update)

    async def work(shard: Sequence[int], on_progress: OnProgress) -> list[Evidence]:
        on_progress(1)
        return []

    monkeypatch.setattr("longreward.tasks.shards.show_progress", record_progress)

    @flow
    async def counting() -> None:
        await run_in_shards("count", range(5), work, record=Evidence, folder=tmp_path, size=2)

    await counting()
    assert updates == [(0, 5), (1, 5), (2, 5), (3, 5), (4, 5), (5, 5), (5, 5)]


def test_records_read_by_position(tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.jsonl" for name in ("two", "none", "one")]
    for file, lines in zip(files, ('"é"\n"b"\n', "", '"c"\n'), strict=True):
        file.write_text(lines, encoding="utf-8")
    records = ShardRecords(files, TypeAdapter(str))
    assert (len(records), [*records], records[1], records[-1]) == (3, ["é", "b", "c"], "b", "c")
    assert [*records[1:]] == ["b", "c"]


async def test_no_items(tmp_path: Path) -> None:
    records = await run_in_shards("none", [], Worker(), record=Evidence, folder=tmp_path, size=3)
    assert list(records) == []
    assert list(tmp_path.iterdir()) == []
