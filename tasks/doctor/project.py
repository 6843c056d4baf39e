"""Checks of the current folder as a project: its graph, settings, data, git and DVC."""

import configparser
import os
import re
import shutil
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

from longreward.errors import ConfigError, LongRewardError
from longreward.models.model_family import same_family_warnings
from longreward.params import Params, read_params, stage_names
from longreward.tasks.doctor.finding import Finding, failure, note, ok, public_url
from longreward.tasks.dvc_command import lock_problem
from longreward.tasks.dvc_files import RAW, stage_entries
from longreward.tasks.new_project import shadowing_modules
from longreward.tasks.state import STATE_VARIABLE

GRAPH = Path("dvc.yaml")
RAW_DVC_FILE = RAW.with_name(RAW.name + ".dvc")


def is_project() -> bool:
    """Return whether this folder has a graph of stages, which every project has."""
    return GRAPH.exists()


def check_project() -> Iterator[Finding]:
    """Check the graph, data, git and DVC; `check_settings` checks the settings."""
    yield from _check_graph()
    if RAW.exists() and any(RAW.iterdir()):
        yield ok("data", f"{RAW} exists")
    elif RAW_DVC_FILE.exists():
        yield note("data", f"{RAW} is missing; a run restores it from DVC's cache or remote")
    else:
        yield failure("data", f"{RAW} is empty", "add your questions (README.md), or `longreward init` a new project")
    yield from _check_repository()
    for path in shadowing_modules(Path()):
        advice = "rename it: the stages would import it instead of the installed package"
        yield failure("modules", f"{path} shadows a package of the same name", advice)


def check_settings(path: Path) -> Generator[Finding, None, Params | None]:
    """Check a file of settings, also for what the stages would miss only after hours; return valid ones."""
    from longreward.checks import check_ready

    try:
        params = read_params(path)
    except ConfigError as error:
        first, *keys = str(error).splitlines()
        for line in keys or [first]:
            yield failure("settings", line.strip(), "`longreward params` prints every key")
        return None
    stages = [name for name in stage_names() if name != "prepare" or RAW.exists() or not RAW_DVC_FILE.exists()]
    try:
        check_ready(params, stages)
    except LongRewardError as error:
        problems = re.split(r"\n  (?! )", str(error))
        for text in problems[1:] or problems:
            yield failure("settings", " ".join(text.split()), "correct params.yaml or the environment")
    else:
        yield ok("settings", f"ready for {', '.join(stages)}")
    yield from _check_retriever(params)
    for sentence in same_family_warnings(params.policy, (judge.model or "" for judge, _ in params.judge.judges())):
        message, _, advice = sentence.partition(", so ")
        yield note("judge", message, advice)
    return params


def _check_retriever(params: Params) -> Iterator[Finding]:
    """Recommend embeddings to whoever uses a real judge; the offline judge compares words itself."""
    uses_model = any(judge.kind != "offline" for judge, _ in params.judge.judges())
    if uses_model and params.score.strategy != "none" and params.score.retriever.kind == "bm25":
        yield note(
            "evidence",
            "score.retriever.kind is bm25, which misses most evidence in other words than the statement",
            "set score.retriever.kind to hybrid and score.retriever.model to an embedding model; without one, set "
            "score.retriever.terms to ngrams (docs/evidence.md)",
        )


def _check_graph() -> Iterator[Finding]:
    try:
        entries = stage_entries()
    except LongRewardError as error:
        yield failure("graph", str(error), "copy dvc.yaml from a new project (`longreward init`)")
        return
    if missing := [name for name in stage_names() if name not in entries]:
        yield failure("graph", f"{GRAPH} lacks {', '.join(missing)}", "copy them from a new project")
    outputs = {output for entry in entries.values() for output in entry.outputs}
    inputs = dict.fromkeys(path for entry in entries.values() for path in entry.inputs)
    lost = [path for path in inputs if path != RAW and not path.exists() and not outputs & {path, *path.parents}]
    for path in lost:
        stages = " and ".join(entry.name for entry in entries.values() if path in entry.inputs)
        yield failure("graph", f"{path} is missing; it is a dependency of {stages}", f"restore it, or edit {GRAPH}")
    if not missing and not lost:
        yield ok("graph", f"{len(entries)} stages in {GRAPH}")


def _check_repository() -> Iterator[Finding]:
    if not shutil.which("git"):
        return  # reported with the environment
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    inside = commit.returncode == 0 or "not a git repository" not in commit.stderr
    if not inside or not Path(".dvc").is_dir():
        yield failure("dvc", "this folder is no DVC repository", "`git init` if there is no git repository; `dvc init`")
        return
    if commit.returncode:
        yield note("git", "no commit yet: runs with -S need one", "`git add . && git commit -m 'A new project'`")
    if problem := lock_problem():
        yield failure("dvc", problem, "`longreward run` repairs it, or remove it while no DVC command runs")
    name, url = default_remote()
    if name is None:
        yield ok("dvc", "a repository without a remote: data and models stay on this machine")
    elif url is None:
        advice = f"`dvc remote add {name} URL`, or `dvc remote default --unset`"
        yield failure("dvc", f"the default remote {name!r} has no address", advice)
    else:
        yield ok("dvc", f"a repository with the remote {name} at {public_url(url)}")


def default_remote() -> tuple[str | None, str | None]:
    """Return name and address of the default remote in the project's DVC configuration; None if not set."""
    config = _dvc_config()
    name = config.get("core", "remote", fallback=None)
    return name, config.get(f"'remote \"{name}\"'", "url", fallback=None)


def storage_folders() -> list[Path]:
    """Return this folder, the state folder and DVC's cache, which may be on several disks."""
    cache = _dvc_config().get("cache", "dir", fallback="cache")
    return [Path.cwd(), Path(os.environ.get(STATE_VARIABLE) or ".longreward").absolute(), (Path.cwd() / ".dvc" / cache)]


def _dvc_config() -> configparser.ConfigParser:
    config = configparser.ConfigParser(interpolation=None, strict=False)
    config.read([".dvc/config", ".dvc/config.local"], encoding="utf-8")
    return config
