"""One pipeline at a time."""

import asyncio
import logging
import sys
from pathlib import Path

import pytest

from tasks import turn as module
from tasks.turn import turn


async def test_the_second_waits_for_the_first_and_says_so(
    own_folders: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LOOK_AGAIN_S", 0.02)
    caplog.set_level(logging.INFO, "tasks.turn")
    happened: list[str] = []

    async def take(name: str) -> None:
        async with turn(name, name):
            happened.append(f"{name} begins")
            await asyncio.sleep(0.2)
            happened.append(f"{name} ends")

    await asyncio.gather(take("first"), take("second"))
    assert happened == ["first begins", "first ends", "second begins", "second ends"]
    assert sum("waits for its turn" in message for message in caplog.messages) >= 1


async def test_a_turn_ends_with_an_error_too(own_folders: Path) -> None:
    with pytest.raises(ValueError):
        async with turn("1", "first"):
            raise ValueError
    async with asyncio.timeout(1), turn("2", "second") as killed:
        assert killed is None


KILLED = """
import asyncio, os
from tasks.turn import turn
async def take():
    async with turn("1", "brave-otter"):
        os._exit(9)
asyncio.run(take())
"""


async def test_the_next_one_learns_of_one_that_was_killed_in_its_turn(own_folders: Path) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED)
    assert await process.wait() == 9
    async with turn("2", "next") as before:
        assert before == "1"
    async with turn("3", "later") as before:
        assert before is None
