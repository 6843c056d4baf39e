"""DVC's file of locks on data, `.dvc/tmp/rwlock`: who holds them, and repair where their holder is gone.

DVC 3.67 writes this file in place (treeverse/dvc 7615): a process that is ended in that moment leaves it empty, and
every later DVC command fails with "JSON structure is corrupted". DVC removes the locks of processes that are gone by
itself, but not where the number of such a process has gone to another program.
"""

import asyncio
import fcntl
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

LOCKS = Path(".dvc/tmp/rwlock")
LOOK_AGAIN_S = 1.0
SAY_AGAIN_S = 60.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """A DVC command that holds locks."""

    process: int
    command: str

    @property
    def alive(self) -> bool:
        """Whether that process runs, and is not another program that has its number by now."""
        try:
            words = psutil.Process(self.process).cmdline()
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True
        started = self.command.split()[:1]
        return any(Path(word).stem == "dvc" for word in words) or any(word in words for word in started)


class _Unreadable(ValueError):
    """The file is empty or holds something else than locks."""


def lock_problem(root: Path = Path()) -> str | None:
    """What is wrong with the file of locks, in one line; None where nothing is."""
    try:
        content = _read(root / LOCKS)
    except _Unreadable as error:
        return f"{LOCKS} {error}, so that every `dvc repro` fails; an interrupted run can leave it so"
    dead = [holder for holder in _holders(content) if not holder.alive]
    if dead:
        named = ", ".join(f"{holder.command} (process {holder.process})" for holder in dead)
        return f"{LOCKS} has locks of processes that are gone: {named}"
    return None


def repair_locks(root: Path = Path()) -> str | None:
    """Remove what `lock_problem` finds, and return it. The caller has the checkout's turn.

    A DVC command may be at work all the same, so this takes the lock under which DVC changes the file.
    """
    if lock_problem(root) is None:  # in nearly all cases, and then nothing is locked
        return None
    with _guarded(root / LOCKS):
        problem = lock_problem(root)
        if problem is None:
            return None
        try:
            content = _read(root / LOCKS)
        except _Unreadable:
            (root / LOCKS).unlink()
        else:
            part = (root / LOCKS).with_name("rwlock.repaired")
            part.write_text(json.dumps(_without_dead(content)), encoding="utf-8")
            part.replace(root / LOCKS)
    log.warning("%s: repaired", problem)
    return problem


async def wait_for_dvc(root: Path = Path()) -> None:
    """Wait, and say so, until no other DVC command holds locks here: `dvc repro` beside it would fail at once."""
    waited = 0.0
    while holders := [holder for holder in _living(root) if holder.alive]:
        if waited % SAY_AGAIN_S == 0:
            named = ", ".join(f"{holder.command} (process {holder.process})" for holder in holders)
            log.info("waits for another DVC command to end: %s", named)
        await asyncio.sleep(LOOK_AGAIN_S)
        waited += LOOK_AGAIN_S


def _living(root: Path) -> list[Holder]:
    try:
        return _holders(_read(root / LOCKS))
    except _Unreadable:
        return []  # being written


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    if not text.strip():
        raise _Unreadable("is empty")
    try:
        content = json.loads(text)
        _holders(content)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise _Unreadable("is damaged") from None
    return dict(content)


def _holders(content: dict[str, Any]) -> list[Holder]:
    """Each process once: it has one entry for each path that it reads, and one for each that it writes."""
    entries = list(content.get("write", {}).values())
    entries += [entry for readers in content.get("read", {}).values() for entry in readers]
    return list(dict.fromkeys(_holder(entry) for entry in entries))


def _holder(entry: dict[str, Any]) -> Holder:
    return Holder(int(entry["pid"]), str(entry["cmd"]))


def _without_dead(content: dict[str, Any]) -> dict[str, Any]:
    write = {path: entry for path, entry in content.get("write", {}).items() if _holder(entry).alive}
    read = {
        path: [entry for entry in readers if _holder(entry).alive] for path, readers in content.get("read", {}).items()
    }
    return {"write": write, "read": {path: readers for path, readers in read.items() if readers}}


@contextmanager
def _guarded(path: Path) -> Iterator[None]:
    """DVC's own lock around its changes of the file (zc.lockfile: flock). DVC holds it for milliseconds.

    Where `core.hardlink_lock` is set DVC uses another kind. Then a change of the file can fall between; so it does
    where DVC's own processes meet on a file system without locks.
    """
    with path.with_name("rwlock.lock").open("a") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield
