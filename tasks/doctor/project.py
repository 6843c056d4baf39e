"""The folder that this is run in, as a project: its files, settings and data, git and DVC."""

import configparser
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from longreward.errors import LongRewardError
from longreward.params import Params, stage_names
from longreward.tasks.doctor.finding import Finding, bad, good, note, shown
from longreward.tasks.dvc_command import RAW, lock_problem, stage_entries
from longreward.tasks.new_project import shadowing_modules
from longreward.tasks.state import STATE_VARIABLE

GRAPH = Path("dvc.yaml")
NOTE = RAW.with_name(RAW.name + ".dvc")


def is_project() -> bool:
    """Whether this folder holds a graph of stages, the one file that no project lacks."""
    return GRAPH.exists()


def check_project() -> Iterator[Finding]:
    """Graph, data, git and DVC. The settings are looked at by `check_settings`."""
    yield from _graph()
    yield from _data()
    yield from _repository()
    for path in shadowing_modules(Path()):
        todo = "rename it: the stages would import it in place of the installed module of that name"
        yield bad("modules", f"{path} hides a module of the same name", todo)


def check_settings(params: Params) -> Iterator[Finding]:
    """What the stages would miss after hours, such as a key, one line each."""
    from longreward.checks import check_ready

    stages = [name for name in stage_names() if name != "prepare" or RAW.exists() or not NOTE.exists()]
    try:
        check_ready(params, stages)
    except LongRewardError as error:
        problems = re.split(r"\n  (?! )", str(error))
        for problem in problems[1:] or problems:
            yield bad("settings", " ".join(problem.split()), "mend params.yaml or the environment")
        return
    yield good("settings", f"ready for {', '.join(stages)}")


def _graph() -> Iterator[Finding]:
    try:
        entries = stage_entries()
    except LongRewardError as error:
        yield bad("graph", str(error), "take dvc.yaml from a new project (`longreward init`)")
        return
    if missing := [name for name in stage_names() if name not in entries]:
        yield bad("graph", f"{GRAPH} lacks {', '.join(missing)}", "take them from a new project (`longreward init`)")
    made = {output for entry in entries.values() for output in entry.outputs}
    inputs = dict.fromkeys(path for entry in entries.values() for path in entry.inputs)
    lost = [path for path in inputs if path != RAW and not path.exists() and not made & {path, *path.parents}]
    for path in lost:
        stages = " and ".join(entry.name for entry in entries.values() if path in entry.inputs)
        yield bad("graph", f"{path} is not here; it is a dependency of {stages}", f"bring it back, or edit {GRAPH}")
    if not missing and not lost:
        yield good("graph", f"{len(entries)} stages in {GRAPH}")


def _data() -> Iterator[Finding]:
    if RAW.exists() and any(RAW.iterdir()):
        yield good("data", f"{RAW} is here")
    elif NOTE.exists():
        yield note("data", f"{RAW} is not here; a run brings it back from DVC's cache or remote")
    else:
        yield bad("data", f"{RAW} is empty", "put your questions there (README.md), or `longreward init` a new project")


def _repository() -> Iterator[Finding]:
    if not shutil.which("git"):
        return  # told already
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    inside = commit.returncode == 0 or "not a git repository" not in commit.stderr
    if not inside or not Path(".dvc").is_dir():
        yield bad("dvc", "this folder is no DVC repository", "`git init` where git has none, then `dvc init`, here")
        return
    if commit.returncode:
        yield note("git", "no commit yet: runs with -S stand on one", "`git add . && git commit -m 'A new project'`")
    if problem := lock_problem():
        yield bad("dvc", problem, "`longreward run` repairs it, or remove it while no DVC command runs")
    yield _remote_settings()


def _remote_settings() -> Finding:
    name, url = default_remote()
    if name is None:
        return good("dvc", "a repository without a remote: data and models stay on this machine")
    if url is None:
        todo = f"`dvc remote add {name} URL`, or `dvc remote default --unset`"
        return bad("dvc", f"the default remote {name!r} has no address", todo)
    return good("dvc", f"a repository with the remote {name} at {shown(url)}")


def default_remote() -> tuple[str | None, str | None]:
    """Name and address of DVC's default remote, as far as the project's own configuration says."""
    config = _dvc_settings()
    name = config.get("core", "remote", fallback=None)
    return name, config.get(f"'remote \"{name}\"'", "url", fallback=None)


def kept_in() -> list[Path]:
    """Where a run keeps much: this folder, the state folder, DVC's cache; they may be on several disks."""
    cache = _dvc_settings().get("cache", "dir", fallback="cache")
    return [Path.cwd(), Path(os.environ.get(STATE_VARIABLE) or ".longreward").absolute(), (Path.cwd() / ".dvc" / cache)]


def _dvc_settings() -> configparser.ConfigParser:
    config = configparser.ConfigParser(interpolation=None, strict=False)
    config.read([".dvc/config", ".dvc/config.local"], encoding="utf-8")
    return config
