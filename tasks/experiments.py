"""A run with its own settings, in a private copy of the checkout, which itself stays as it is.

The copy is a git worktree in the state folder:

    git worktree add      the last commit, with uncommitted changes and new files on top, and the settings in its
                          params.yaml
    .dvc/config.local     shares DVC's cache: results of equal inputs are not computed again
    dvc exp save          makes the copy an experiment of the checkout, which `dvc exp show` lists under the run's name

The copy is removed at the end, also after an error: DVC's cache keeps the finished stages for the next try. For why
this is not `dvc exp run --temp` see docs/decisions/2026-11-23-runs-with-their-own-settings.md.
"""

import logging
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, chdir
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from longreward.errors import ConfigError, StateError
from longreward.params import PARAMS, Params, read_params, set_override
from longreward.tasks import dvc_command
from longreward.tasks.dvc_files import RAW, stage_entries
from longreward.tasks.state import STATE_VARIABLE, experiment_copies, state_folder
from longreward.tasks.tracking.store import pin_locations

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What a run changes: a preset in place of params.yaml, and single keys ("train.beta=0.3") on top."""

    preset: Path | None = None
    overrides: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.preset is not None or bool(self.overrides)

    @property
    def as_text(self) -> str:
        """One setting a line."""
        return "\n".join([*([f"preset={self.preset.stem}"] if self.preset else []), *self.overrides])

    def check(self) -> Params:
        """Return all parameters of the run; raises ConfigError, with the nearest key, if they are not valid."""
        return read_params(self.preset or PARAMS, self.overrides)


def check_name(name: str) -> None:
    """Raise ConfigError if `name` is no valid name of an experiment, or if one has it already."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*", name) or name.endswith(".lock"):
        raise ConfigError(f"{name!r} cannot name an experiment: use letters, digits, -, _ and dots between them")
    if _git("for-each-ref", f"refs/exps/*/*/{name}").strip():
        raise ConfigError(
            f"there is an experiment {name!r} already: choose another name, or `dvc exp remove {name}` first"
        )


def experiment_names() -> frozenset[str]:
    """Return the names of all DVC experiments of this checkout."""
    refs = _git("for-each-ref", "--format=%(refname)", "refs/exps/").split()
    return frozenset(ref.rpartition("/")[2] for ref in refs)


@asynccontextmanager
async def private_copy(name: str, settings: Settings) -> AsyncIterator[None]:
    """Work in a copy with these settings, and save it as experiment `name` if the block ends without an error.

    The caller holds the pipeline lock. Raises ConfigError if there is no commit or `name` is not valid.
    """
    root, top = Path.cwd(), _repository()
    check_name(name)
    home = state_folder()
    os.environ[STATE_VARIABLE] = str(home)  # absolute, before the working folder changes
    pin_locations()
    worktree = experiment_copies() / name
    copy = worktree / root.relative_to(top)
    preset = settings.preset.resolve() if settings.preset else None
    _remove_copies(top)  # of runs that were killed
    try:
        _add_worktree(top, worktree, exclude=(home, root / RAW))
        await dvc_command.share_cache(root, copy)
        with chdir(copy):
            _write_params(preset, settings.overrides)
            await dvc_command.checkout_data(root)
            _link_ignored_paths(root)
            yield
            await dvc_command.save_experiment(name, environment=_git_identity())
            not_run = [name for name, entry in stage_entries().items() if not all(map(Path.exists, entry.outputs))]
        log.info("kept as DVC experiment %s: `dvc exp show` lists it, `dvc exp apply %s` brings it here", name, name)
        if not_run:  # DVC 3.67 applies the rest first, and then ends with 255
            log.info(
                "it has no outputs of %s: `dvc exp apply` brings the others, then reports these as an error; "
                "`longreward run` creates them",
                ", ".join(not_run),
            )
    finally:
        _remove_copies(top)


def _repository() -> Path:
    """Return the root of the git repository; raises ConfigError without a commit."""
    try:
        top = _git("rev-parse", "--show-toplevel").strip()
        _git("rev-parse", "--verify", "--quiet", "HEAD")
    except StateError:
        raise ConfigError(
            "a run with settings of its own becomes a DVC experiment, which needs a git commit, and there is none "
            "here: `git init`, `git add -A` and `git commit` the project first"
        ) from None
    return Path(top).resolve()


def _add_worktree(top: Path, worktree: Path, *, exclude: Sequence[Path]) -> None:
    """Copy the last commit, what has changed since, and new files, except ignored ones and the `exclude` folders."""
    # The path of no folder: hooks that `dvc install` or a user adds are for the user's own checkouts.
    _git("-c", "core.hooksPath=/dev/null", "worktree", "add", "--quiet", "--detach", str(worktree), "HEAD", cwd=top)
    if changes := _git("stash", "create", cwd=top).strip():  # a commit of the changes, without touching the checkout
        _git("restore", "--source", changes, "--worktree", ":/", cwd=worktree)
    for name in _git("ls-files", "--others", "--exclude-standard", "-z", cwd=top).split("\0"):
        source = top / name
        if name and not any(source.is_relative_to(folder) for folder in exclude):
            (worktree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, worktree / name, follow_symlinks=False)


def _remove_copies(top: Path) -> None:
    shutil.rmtree(experiment_copies(), ignore_errors=True)
    _git("worktree", "prune", cwd=top)


def _write_params(preset: Path | None, overrides: tuple[str, ...]) -> None:
    """Change the values alone; comments and order stay, as `dvc exp apply` may bring the file to the checkout."""
    from ruamel.yaml import YAML

    if preset:
        shutil.copyfile(preset, PARAMS)
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1000
    values = yaml.load(PARAMS.read_text(encoding="utf-8"))
    for override in overrides:
        set_override(values, override)
    text = StringIO()
    yaml.dump(values, text)
    PARAMS.write_text(text.getvalue(), encoding="utf-8")


def _link_ignored_paths(root: Path) -> None:
    """Link files and folders that settings name and git ignores, such as a model: the copy does not have them."""
    for value in _strings(read_params(PARAMS).model_dump(mode="json")):
        path = Path(value)
        if path.is_absolute() or ".." in path.parts or not value or path.exists() or not (root / path).exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(root / path)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


def _git_identity() -> dict[str, str]:
    """Return variables that name an author of commits, if git knows none: on many servers it does not."""
    try:
        _git("config", "user.name")
        _git("config", "user.email")
    except StateError:
        roles = ("AUTHOR", "COMMITTER")
        names = {f"GIT_{role}_NAME": "longreward" for role in roles}
        return names | {f"GIT_{role}_EMAIL": "longreward@localhost" for role in roles}
    return {}


def _git(*arguments: str, cwd: Path | None = None) -> str:
    """Return what the command prints; raises StateError with its error message."""
    command = ["git", *arguments]
    try:
        result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, errors="surrogateescape", check=True)
    except FileNotFoundError:
        raise StateError("git is not installed, and experiments are kept in it") from None
    except subprocess.CalledProcessError as error:
        raise StateError(f"`git {' '.join(arguments[:2])}` failed: {error.stderr.strip()}") from None
    return result.stdout
