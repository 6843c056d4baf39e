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
def fast_polling(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_INTERVAL_S", 0.001)


class LockedRun:
    """A run that holds the lock until it is released, and logs the events."""

    def __init__(self, name: str, log: list[str], *, experiment: bool = False) -> None:
        self.name, self.log, self.experiment = name, log, experiment
        self.waiting, self.holding, self.release = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.task = asyncio.create_task(self._hold_lock())

    async def _hold_lock(self) -> None:
        async with pipeline_lock(self.name, self._log_waiting, experiment=self.experiment):
            self.log.append(f"{self.name} begins")
            self.holding.set()
            await self.release.wait()
            self.log.append(f"{self.name} ends")

    async def _log_waiting(self, holder: str | None) -> None:
        self.log.append(f"{self.name} waits for {holder}")
        self.waiting.set()


async def test_second_run_waits_and_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "longreward.tasks.pipeline_lock")
    log: list[str] = []
    first = LockedRun("first", log)
    await first.holding.wait()
    second = LockedRun("second", log)
    await second.waiting.wait()
    first.release.set()
    await second.holding.wait()
    second.release.set()
    await asyncio.gather(first.task, second.task)
    assert log == [
        *("first begins", "second waits for first", "first ends"),
        *("second waits for None", "second begins", "second ends"),
    ]
    assert [message.partition(" (")[0] for message in caplog.messages] == ["run second waits for first"]


async def test_waiting_runs_are_first_in_first_out() -> None:
    log: list[str] = []
    first = LockedRun("first", log)
    await first.holding.wait()
    waiting = []
    for name in ("delta", "alpha", "charlie", "bravo"):  # not in alphabetical order
        waiting.append(LockedRun(name, log))
        await waiting[-1].waiting.wait()
    assert [ticket.name for ticket in queue()] == ["first", "delta", "alpha", "charlie", "bravo"]
    waiting[1].task.cancel()  # a cancelled run does not block the others
    await asyncio.wait([waiting[1].task])
    for run in (first, *waiting):
        run.release.set()
    await asyncio.gather(first.task, *(run.task for run in waiting if run.name != "alpha"))
    assert [line.removesuffix(" begins") for line in log if "begins" in line] == [
        *("first", "delta", "charlie", "bravo")
    ]
    assert queue() == []


async def test_duplicate_experiment_name_in_queue() -> None:
    log: list[str] = []
    first = LockedRun("first", log, experiment=True)
    await first.holding.wait()
    second = LockedRun("second", log, experiment=True)
    await second.waiting.wait()
    for name in ("first", "second"):  # the running one and a waiting one
        with pytest.raises(ConfigError, match=f"a run '{name}' runs or waits here already"):
            await LockedRun(name, log, experiment=True).task
    without_settings = LockedRun("second", log)  # becomes no experiment
    await without_settings.waiting.wait()
    for run in (first, second, without_settings):
        run.release.set()
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
