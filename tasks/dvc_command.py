"""Call the `dvc` command, and wait for or repair its locks on data.

DVC keeps locks on paths in `.dvc/tmp/rwlock`. DVC 3.67 writes this file in place (treeverse/dvc#7615): a process that
is killed in that moment leaves it empty, and every later command fails with "JSON structure is corrupted". DVC itself
removes the locks of processes that have ended, unless another program has the same pid by now.
"""

import asyncio
import fcntl
import json
import logging
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import chdir, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from longreward.errors import DataError
from longreward.tasks.dvc_files import RAW, RAW_ENTRY, stage_entries
from longreward.tasks.pipeline_lock import POLL_INTERVAL_S
from longreward.tasks.processes import CommandResult, is_dvc, run_in_group, start_program
from longreward.tasks.stage_processes import running_fork_server
from longreward.utils.console import is_verbose
from longreward.utils.progress import format_duration

DVC = (sys.executable, "-m", "dvc")
QUIET_DVC = (sys.executable, "-m", "longreward.tasks.quiet_dvc")
LOCKS = Path(".dvc/tmp/rwlock")
LOCKED_MESSAGES = ("Unable to acquire lock", "is busy, it is being blocked by")
LOG_INTERVAL_S = 60.0
LOCKED_TRIES = 120  # about ten minutes: on a file system without locks it would never end
HINTS = (  # DVC repeats them after each stage; a user of the pipeline needs none of them
    "To track the changes with git",
    "To enable auto staging",
    "Use `dvc push`",
    "Data and pipelines are up to date",
    "Generating lock file",
    "Updating lock file",
    "\tgit add",
    "\tdvc config",
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageResult:
    """How a stage went; `ran` is False if DVC found it up to date."""

    stage: str
    ran: bool
    seconds: float
    figures: str = ""
    """Its first headline metrics."""

    def __str__(self) -> str:
        if not self.ran:
            return f"{self.stage} is up to date"
        figures = f" ({self.figures})" if self.figures else ""
        return f"{self.stage} done in {format_duration(self.seconds)}{figures}"


async def dvc(*arguments: str, environment: Mapping[str, str] | None = None) -> CommandResult:
    """Run a short DVC command and capture its output."""
    return await run_in_group([*DVC, *arguments], environment=environment or {}, quiet=True)


async def reproduce(stage: str, *, force: bool, environment: Mapping[str, str]) -> CommandResult:
    """Run `dvc repro --single-item`: the stage runs if a dependency has changed, or with `force`.

    While another DVC command holds a lock, this waits and tries again.
    """
    arguments = ["repro", "--single-item", *(["--force"] if force else []), stage]
    # The commands of the stages call `python`: it must be this one, even if its environment is not activated.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {"PATH": path, **environment}

    def show_line(line: str) -> bool:
        return bool(line) and not line.startswith(HINTS if is_verbose() else (*HINTS, "ERROR: "))

    server = running_fork_server(stage)
    command = arguments if server else [*(DVC if is_verbose() else QUIET_DVC), *arguments]
    start = server.start if server else start_program
    return await _retry_while_locked(
        lambda: run_in_group(command, environment=environment, show_line=show_line, start=start)
    )


async def has_nothing_to_do() -> bool:
    """Return whether all stages and the raw data are as DVC has recorded them, and there is no remote to push to.

    False also where DVC cannot tell, for example because another command holds its lock.
    """
    if not RAW_ENTRY.exists():
        return False
    # With targets, other pipelines in subfolders do not matter.
    status, has_remote = await asyncio.gather(dvc("status", "--json", "dvc.yaml", str(RAW_ENTRY)), _has_remote())
    if status.code or has_remote:
        return False
    try:
        return bool(json.loads(status.output.splitlines()[-1]) == {})
    except (ValueError, IndexError):
        return False


async def add_raw() -> bool:
    """Add raw data that is new or has changed to DVC, and check it out if it is missing; return whether it changed.

    Raises DataError if there is no raw data and DVC cannot restore it.
    """
    if not RAW.exists():
        restored = RAW_ENTRY.exists() and (await dvc("pull" if await _has_remote() else "checkout", str(RAW_ENTRY)))
        if not restored or restored.code:
            raise DataError(f"{RAW} is missing and DVC cannot restore it: run `make setup`, or put your data there")
        return True
    if await _raw_unchanged():
        return False
    _check(await _retry_while_locked(lambda: dvc("add", str(RAW))), f"dvc add {RAW}")
    return True


async def add_data(path: Path) -> bool:
    """Put a file or folder under DVC's control as it is now; return False outside of a DVC repository."""
    if (await dvc("root")).code:
        return False
    _check(await _retry_while_locked(lambda: dvc("add", str(path))), f"dvc add {path}")
    return True


async def _raw_unchanged() -> bool:
    if not RAW_ENTRY.exists():
        return False
    status = await dvc("status", "--json", str(RAW_ENTRY))
    return status.code == 0 and json.loads(status.output.splitlines()[-1]) == {}


async def push() -> bool:
    """Push the cache to the default remote; return False if none is configured."""
    if not await _has_remote():
        return False
    _check(await _retry_while_locked(lambda: dvc("push")), "dvc push")
    return True


async def _has_remote() -> bool:
    return bool((await dvc("config", "core.remote")).output.strip())


async def share_cache(root: Path, copy: Path) -> None:
    """Let a copy of the project at `root`, where this process works, use the same cache and remotes."""
    local_config = Path(".dvc/config.local")  # ignored by git, as it may hold a remote's password
    if (root / local_config).exists():
        shutil.copy2(root / local_config, copy / local_config)
    config = dict(line.partition("=")[::2] for line in (await _output_of("config", "--list")).splitlines())
    shared = {"cache.dir": (await _output_of("cache", "dir")).strip()}
    if "cache.type" not in config:
        shared["cache.type"] = "reflink,hardlink,symlink,copy"  # links: the data would otherwise be there twice
    # `dvc config --list` shows remotes in folders with absolute paths, the files that a copy has with relative ones.
    shared |= {key: value for key, value in config.items() if key.startswith("remote.") and Path(value).is_absolute()}
    with chdir(copy):
        for key, value in shared.items():
            await _output_of("config", "--local", key, value)


async def checkout_data(root: Path) -> None:
    """Check out all data into the copy that this process works in, with the raw data as it is now at `root`."""
    with chdir(root):
        raw_as_recorded = not RAW.exists() or await _raw_unchanged()
    await dvc("checkout", "--allow-missing")  # `check_inputs` reports what the cache lacks
    if not raw_as_recorded:
        shutil.rmtree(RAW, ignore_errors=True)
        shutil.copytree(root / RAW, RAW)


async def save_experiment(name: str, *, environment: Mapping[str, str]) -> None:
    """Save the working tree as an experiment on the last commit, with the stages whose outputs exist."""
    complete = [entry for entry in stage_entries().values() if all(path.exists() for path in entry.outputs)]
    metrics = [str(path) for entry in complete for path in entry.outputs if path.is_file()]
    include = [argument for file in metrics for argument in ("--include-untracked", file)]
    stages = [entry.name for entry in complete]
    _check(await dvc("exp", "save", "--name", name, *include, *stages, environment=environment), "dvc exp save")


async def _output_of(*arguments: str) -> str:
    result = await dvc(*arguments)
    _check(result, f"dvc {' '.join(arguments[:2])}")
    return result.output


def _check(result: CommandResult, command: str) -> None:
    if result.code:
        raise DataError(f"`{command}` failed:\n{result.output}")


async def _retry_while_locked(run: Callable[[], Awaitable[CommandResult]]) -> CommandResult:
    """Return the result of `run` once no other DVC command is in its way; DVC itself waits for three seconds."""
    for _ in range(LOCKED_TRIES):
        await wait_for_dvc()
        result = await run()
        if not result.code or not any(message in result.output for message in LOCKED_MESSAGES):
            break
        log.warning("another DVC command is at work in this project: this run tries again until that has ended")
        await asyncio.sleep(POLL_INTERVAL_S)
    return result


@dataclass(frozen=True)
class LockHolder:
    """A DVC command that holds locks on data."""

    pid: int
    command: str

    def __str__(self) -> str:
        return f"{self.command} (process {self.pid})"

    @property
    def alive(self) -> bool:
        """Whether that process runs and is not another program with the same pid."""
        try:
            words = psutil.Process(self.pid).cmdline()
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True
        program = self.command.split()[:1]
        return any(map(is_dvc, words)) or any(word in words for word in program)


class _UnreadableLocks(ValueError):
    """The lock file is empty or damaged."""


async def wait_for_dvc(root: Path = Path()) -> None:
    """Wait until no other DVC command holds locks, and log it: a `dvc repro` beside it would fail at once."""
    waited = 0.0
    while True:
        try:
            holders = {str(holder) for *_, holder in _read_locks(root / LOCKS) if holder.alive}
        except _UnreadableLocks:  # being written
            return
        if not holders:
            return
        if waited % LOG_INTERVAL_S == 0:
            log.info("waits for another DVC command to end: %s", ", ".join(sorted(holders)))
        await asyncio.sleep(POLL_INTERVAL_S)
        waited += POLL_INTERVAL_S


def lock_problem(root: Path = Path()) -> str | None:
    """Return what is wrong with DVC's lock file, in one line; None if nothing is."""
    try:
        ended = sorted({str(holder) for *_, holder in _read_locks(root / LOCKS) if not holder.alive})
    except _UnreadableLocks as error:
        return f"{LOCKS} {error}, so that every `dvc repro` fails; an interrupted run can leave it so"
    return f"{LOCKS} has locks of processes that are gone: {', '.join(ended)}" if ended else None


def repair_locks(root: Path = Path()) -> str | None:
    """Remove what `lock_problem` finds, and return it. The caller holds the pipeline lock of the checkout."""
    if lock_problem(root) is None:  # nearly always: then nothing is locked and nothing created
        return None
    file = root / LOCKS
    # Another DVC command may be at work nevertheless. This is DVC's own lock around changes of the file (zc.lockfile),
    # which it holds for milliseconds; with `core.hardlink_lock` DVC uses another kind, and this one excludes nobody.
    with file.with_name("rwlock.lock").open("a") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        problem = lock_problem(root)
        if problem is None:
            return None
        with suppress(_UnreadableLocks):
            if any(holder.alive for *_, holder in _read_locks(file)):
                return None  # the next pipeline repairs the file
        part = file.with_name("rwlock.repaired")
        part.write_text(json.dumps({"write": {}, "read": {}}), encoding="utf-8")
        part.replace(file)
    log.warning("%s: repaired", problem)
    return problem


def _read_locks(file: Path) -> list[tuple[str, str, LockHolder]]:
    """Return kind ("write" or "read"), path and holder of each lock; raises _UnreadableLocks.

    The file has {"write": {path: holder}, "read": {path: [holder, …]}}, a holder being {"pid": …, "cmd": …}.
    """
    if not file.exists():
        return []
    text = file.read_text(encoding="utf-8")
    if not text.strip():
        raise _UnreadableLocks("is empty")
    try:
        locks = json.loads(text)
        entries = [("write", path, entry) for path, entry in locks.get("write", {}).items()]
        entries += [("read", path, entry) for path, row in locks.get("read", {}).items() for entry in row]
        return [(kind, path, LockHolder(int(entry["pid"]), str(entry["cmd"]))) for kind, path, entry in entries]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise _UnreadableLocks("is damaged") from None
