"""DVC's file of locks on data, `.dvc/tmp/rwlock`: who holds them, and repair where their holder is gone.

DVC 3.67 writes this file in place (treeverse/dvc 7615): a process that is ended in that moment leaves it empty, and
every later DVC command fails with "JSON structure is corrupted". DVC removes the locks of processes that are gone by
itself, but not where the number of such a process has gone to another program.
"""

import asyncio
import fcntl
import json
import logging
import os
import shutil
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from longreward.errors import ConfigError, DataError
from longreward.tasks.processes import CommandResult, run_in_group

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
        content = _read_locks(root / LOCKS)
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
            content = _read_locks(root / LOCKS)
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
        return _holders(_read_locks(root / LOCKS))
    except _Unreadable:
        return []  # being written


def _read_locks(path: Path) -> dict[str, Any]:
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


# DVC's command, called here and nowhere else, and what its files say: stages, their inputs, the hashes of data.
#
# A stage's own process never calls DVC, which holds its lock meanwhile; it reads `dvc.yaml`, `dvc.lock` and `*.dvc`.


RAW = Path("data/raw")
DVC = (sys.executable, "-m", "dvc")
LOCKED = ("Unable to acquire lock", "is busy, it is being blocked by")
LOCKED_TRIES = 120  # about ten minutes: on a file system without locks it would go on for ever
HINTS = (  # after each stage anew, and no user of the pipeline has to follow one
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
class StageEntry:
    """What `dvc.yaml` says of a stage."""

    name: str
    inputs: tuple[Path, ...]
    sections: tuple[str, ...]  # of params.yaml
    outputs: tuple[Path, ...]


def stage_entries(path: Path = Path("dvc.yaml")) -> dict[str, StageEntry]:
    """The stages in the file's order, which is the order in which they run."""
    stages = _read(path).get("stages")
    if not isinstance(stages, dict):
        raise ConfigError(f"{path} has no stages; is this the project's folder?")
    return {name: _entry(name, stage) for name, stage in stages.items()}


def _entry(name: str, stage: Mapping[str, Any]) -> StageEntry:
    return StageEntry(
        name=name,
        inputs=tuple(Path(dep) for dep in stage.get("deps", ())),
        sections=tuple(param.partition(".")[0] for param in stage.get("params", ())),
        outputs=tuple(Path(_path_of(out)) for kind in ("outs", "metrics", "plots") for out in stage.get(kind, ())),
    )


def _path_of(output: str | Mapping[str, Any]) -> str:
    return output if isinstance(output, str) else next(iter(output))


def check_inputs(stages: Sequence[str]) -> None:
    """ConfigError where one of these stages needs what another one makes, which is neither here nor asked for."""
    entries = stage_entries()
    makers = {output: name for name, entry in entries.items() for output in entry.outputs}
    wanted, lacking = set(stages), ""
    for name in reversed(entries):  # a stage's inputs come from stages before it
        for path in entries[name].inputs if name in wanted else ():
            maker = next((makers[place] for place in (path, *path.parents) if place in makers), None)
            if maker is not None and maker not in wanted and not path.exists():
                wanted.add(maker)
                lacking = lacking or f"stage {name} needs {path}, which {maker} makes and which is not here"
    if lacking:
        together = " ".join(name for name in entries if name in wanted)
        raise ConfigError(f"{lacking}: ask for all that is missing, --stages {together}, or for all stages")


def data_hashes(paths: tuple[Path, ...]) -> dict[str, str]:
    """DVC's hash of each path that DVC knows: an output in `dvc.lock`, or something added (`<path>.dvc`).

    A path inside a folder that DVC knows as a whole has the folder's hash.
    """
    known = _known_hashes()
    found = {}
    for path in paths:
        for place in (path, *path.parents):
            if hash_ := known.get(place):
                found[path.as_posix()] = hash_
                break
    return found


def committed_hashes() -> frozenset[str]:
    """The hashes of all outputs in `dvc.lock`, which DVC writes once a stage has succeeded."""
    stages = _read(Path("dvc.lock"), missing={}).get("stages", {}).values()
    return frozenset(out["md5"] for stage in stages for out in stage.get("outs", ()) if "md5" in out)


def _known_hashes() -> dict[Path, str]:
    known: dict[Path, str] = {}
    for stage in _read(Path("dvc.lock"), missing={}).get("stages", {}).values():
        known |= {Path(out["path"]): out["md5"] for out in stage.get("outs", ()) if "md5" in out}
    for file in Path("data").glob("*.dvc"):
        known |= {file.parent / out["path"]: out["md5"] for out in _read(file).get("outs", ()) if "md5" in out}
    return known


def _read(path: Path, *, missing: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if missing is not None:
            return missing
        raise ConfigError(f"{path} is not here; run this in the project's folder") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    return values if isinstance(values, dict) else {}


async def add_raw() -> bool:
    """Puts the raw data under DVC where it is new or has changed, and brings it back where it is gone.

    Returns whether anything changed; raises DataError where there is neither data nor a way to get it.
    """
    note = RAW.with_name(RAW.name + ".dvc")
    if not RAW.exists():
        if not note.exists() or (await dvc("pull" if await _remote() else "checkout", str(note))).code:
            raise DataError(f"{RAW} is missing and DVC cannot bring it back: run `make setup`, or put your data there")
        return True
    if note.exists() and await _unchanged(note):
        return False
    _check(await _unless_locked(lambda: dvc("add", str(RAW))), f"dvc add {RAW}")
    return True


async def _unchanged(note: Path) -> bool:
    status = await dvc("status", "--json", str(note))
    return status.code == 0 and json.loads(status.words.splitlines()[-1]) == {}


async def push() -> bool:
    """Sends the cache to the default remote; False where none is configured."""
    if not await _remote():
        return False
    _check(await _unless_locked(lambda: dvc("push")), "dvc push")
    return True


async def _remote() -> bool:
    return bool((await dvc("config", "core.remote")).words.strip())


async def reproduce(stage: str, *, force: bool, environment: Mapping[str, str]) -> CommandResult:
    """`dvc repro --single-item`: runs the stage if anything that it depends on has changed, or by `force`.

    Where somebody else's DVC command holds a lock it waits for that one and tries again.
    """
    command = [*DVC, "repro", "--single-item", *(["--force"] if force else []), stage]
    environment = {"PATH": _path_with_this_python(), **environment}
    return await _unless_locked(lambda: run_in_group(command, environment=environment, worth_showing=_is_no_hint))


async def _unless_locked(run: Callable[[], Awaitable[CommandResult]]) -> CommandResult:
    """What `run` comes to once no other DVC command is in its way; DVC itself waits for three seconds."""
    for _ in range(LOCKED_TRIES):
        await wait_for_dvc()
        ended = await run()
        if not ended.code or not any(words in ended.words for words in LOCKED):
            break
        log.warning("another DVC command is at work in this project: this run tries again until that has ended")
        await asyncio.sleep(LOOK_AGAIN_S)
    return ended


def _is_no_hint(line: str) -> bool:
    return bool(line) and not line.startswith(HINTS)


def _path_with_this_python() -> str:
    """The stages call `python`; it must be this one, whether or not its environment is activated."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


async def share_cache(root: Path, copy: Path) -> None:
    """Lets the project's `copy` use the cache and the remotes of the one at `root`, where this process works."""
    own = Path(".dvc/config.local")  # ignored by git, as it may hold a remote's password
    if (root / own).exists():
        shutil.copy2(root / own, copy / own)
    cache = await _said("cache", "dir")
    settings = dict(line.partition("=")[::2] for line in (await _said("config", "--list")).splitlines())
    shared = {"cache.dir": cache.strip()}
    if "cache.type" not in settings:
        shared["cache.type"] = "reflink,hardlink,symlink,copy"  # a copy of all data would be one too many
    shared |= {
        key: value for key, value in settings.items() if key.startswith("remote.") and Path(value).is_absolute()
    }  # a folder that is named relative to the project
    with chdir(copy):
        for key, value in shared.items():
            await _said("config", "--local", key, value)


async def bring_data(root: Path) -> None:
    """Brings all that DVC knows into the copy that this process works in; raw data as it is now at `root`."""
    with chdir(root):
        note = RAW.with_name(RAW.name + ".dvc")
        as_noted = not RAW.exists() or (note.exists() and await _unchanged(note))
    await dvc("checkout", "--allow-missing")  # what the cache lacks is asked for where it is needed
    if not as_noted:
        shutil.rmtree(RAW, ignore_errors=True)
        shutil.copytree(root / RAW, RAW)


async def save_experiment(name: str) -> None:
    """Makes the working state an experiment on the last commit."""
    made = {stage: entry for stage, entry in stage_entries().items() if all(path.exists() for path in entry.outputs)}
    figures = [str(path) for entry in made.values() for path in entry.outputs if path.is_file()]
    new = (word for file in figures for word in ("--include-untracked", file))
    await _said("exp", "save", "--name", name, *new, *made)


async def _said(*arguments: str) -> str:
    ended = await dvc(*arguments)
    _check(ended, f"dvc {' '.join(arguments[:2])}")
    return ended.words


async def dvc(*arguments: str) -> CommandResult:
    """A quick command of DVC's, its output kept."""
    return await run_in_group([*DVC, *arguments], environment={}, quiet=True)


def _check(ended: CommandResult, command: str) -> None:
    if ended.code:
        raise DataError(f"`{command}` failed:\n{ended.words}")
