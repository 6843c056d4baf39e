"""One pipeline at a time."""

import asyncio
import logging
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
        async with turn():
            happened.append(f"{name} begins")
            await asyncio.sleep(0.2)
            happened.append(f"{name} ends")

    await asyncio.gather(take("first"), take("second"))
    assert happened == ["first begins", "first ends", "second begins", "second ends"]
    assert sum("waits for its turn" in message for message in caplog.messages) >= 1


async def test_a_turn_ends_with_an_error_too(own_folders: Path) -> None:
    with pytest.raises(ValueError):
        async with turn():
            raise ValueError
    async with asyncio.timeout(1), turn():
        pass
