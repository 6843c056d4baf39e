"""One pipeline at a time, in order."""

import asyncio
import logging
import sys
from pathlib import Path

import pytest

from longreward.errors import ConfigError
from longreward.tasks import pipeline_lock as module
from longreward.tasks.flow_runs import killed_runs, register_flow_run
from longreward.tasks.pipeline_lock import pipeline_lock, queue


@pytest.fixture(autouse=True)
def _look_often(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_INTERVAL_S", 0.001)


class Run:
    """A run that has its turn until it is told to end, and notes what happens."""

    def __init__(self, name: str, happened: list[str], *, experiment: bool = False) -> None:
        self.name, self.happened, self.experiment = name, happened, experiment
        self.waits, self.runs, self.may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.task = asyncio.create_task(self._take())

    async def _take(self) -> None:
        async with pipeline_lock(self.name, self._show, experiment=self.experiment):
            self.happened.append(f"{self.name} begins")
            self.runs.set()
            await self.may_end.wait()
            self.happened.append(f"{self.name} ends")

    async def _show(self, holder: str | None) -> None:
        self.happened.append(f"{self.name} waits for {holder}")
        self.waits.set()


async def test_second_run_waits_and_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "longreward.tasks.pipeline_lock")
    happened: list[str] = []
    first = Run("first", happened)
    await first.runs.wait()
    second = Run("second", happened)
    await second.waits.wait()
    first.may_end.set()
    await second.runs.wait()
    second.may_end.set()
    await asyncio.gather(first.task, second.task)
    assert happened == [
        *("first begins", "second waits for first", "first ends"),
        *("second waits for None", "second begins", "second ends"),
    ]
    assert [message.partition(" (")[0] for message in caplog.messages] == ["first runs"]


async def test_waiting_runs_are_first_in_first_out() -> None:
    happened: list[str] = []
    first = Run("first", happened)
    await first.runs.wait()
    waiting = []
    for name in ("delta", "alpha", "charlie", "bravo"):  # their names are in no order
        waiting.append(Run(name, happened))
        await waiting[-1].waits.wait()
    assert [ticket.name for ticket in queue()] == ["first", "delta", "alpha", "charlie", "bravo"]
    waiting[1].task.cancel()  # one that goes away holds nobody up
    await asyncio.wait([waiting[1].task])
    for run in (first, *waiting):
        run.may_end.set()
    await asyncio.gather(first.task, *(run.task for run in waiting if run.name != "alpha"))
    assert [line.removesuffix(" begins") for line in happened if "begins" in line] == [
        *("first", "delta", "charlie", "bravo")
    ]
    assert queue() == []


async def test_duplicate_experiment_name_in_queue() -> None:
    happened: list[str] = []
    first = Run("first", happened, experiment=True)
    await first.runs.wait()
    second = Run("second", happened, experiment=True)
    await second.waits.wait()
    for taken in ("first", "second"):  # of the one that runs, and of one that waits
        with pytest.raises(ConfigError, match=f"a run '{taken}' runs or waits here already"):
            await Run(taken, happened, experiment=True).task
    without_settings = Run("second", happened)  # becomes no experiment
    await without_settings.waits.wait()
    for run in (first, second, without_settings):
        run.may_end.set()
    await asyncio.gather(first.task, second.task, without_settings.task)


async def test_lock_released_on_error() -> None:
    with pytest.raises(ValueError):
        async with pipeline_lock("first"):
            raise ValueError
    async with pipeline_lock("second"):
        assert [ticket.name for ticket in queue()] == ["second"]


KILLED = """
import asyncio, os
from longreward.tasks.flow_runs import register_flow_run
from longreward.tasks.pipeline_lock import pipeline_lock
async def take():
    with register_flow_run("11111111-2222-3333-4444-555555555555"):
        async with pipeline_lock("brave-otter"):
            os._exit(9)
asyncio.run(take())
"""


async def test_killed_holder_does_not_block(workspace: Path) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED)
    assert await process.wait() == 9
    async with pipeline_lock("next"):
        assert [ticket.name for ticket in queue()] == ["next"]
    with register_flow_run("99999999-2222-3333-4444-555555555555"):
        assert list(killed_runs()) == ["11111111-2222-3333-4444-555555555555"]
