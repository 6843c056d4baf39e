"""A run with settings of its own, in a private copy of the checkout, which itself stays as it is.

    checkout at HEAD --git clone--> copy   with what is not committed yet, and the run's settings in its params.yaml
    copy             shares DVC's cache: what has been computed from equal inputs is not computed again
    copy --dvc exp save, git fetch--> an experiment of the checkout, which `dvc exp show` lists by the run's name

The copy lies in the state folder and goes when the run ends, however it ends: what was finished is in DVC's cache,
where a later try finds it.
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
from longreward.params import Params, read_params, set_override
from longreward.tasks import dvc_command
from longreward.tasks.state import STATE_VARIABLE, experiment_copies, state_folder
from longreward.tasks.tracking.store import pin_locations

PARAMS = Path("params.yaml")

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
        """For the record, one setting a line."""
        return "\n".join([*([f"preset={self.preset.stem}"] if self.preset else []), *self.overrides])

    def check(self) -> Params:
        """All parameters of the run; ConfigError, with the nearest known key, where they would not be valid."""
        return read_params(self.preset or PARAMS, self.overrides)


def check_name(name: str) -> None:
    """Raises ConfigError where `name` cannot name an experiment, or one has it already."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*", name) or name.endswith(".lock"):
        raise ConfigError(f"{name!r} cannot name an experiment: use letters, digits, -, _ and dots between them")
    if _git("for-each-ref", f"refs/exps/*/*/{name}").strip():
        raise ConfigError(
            f"there is an experiment {name!r} already: choose another name, or `dvc exp remove {name}` first"
        )


def experiment_names() -> frozenset[str]:
    """The names of all DVC experiments of this checkout."""
    refs = _git("for-each-ref", "--format=%(refname)", "refs/exps/").split()
    return frozenset(ref.rpartition("/")[2] for ref in refs)


@asynccontextmanager
async def private_copy(name: str, settings: Settings) -> AsyncIterator[None]:
    """Works in a copy with these settings; where the block ends without an error, the copy becomes experiment `name`.

    Its caller has the checkout's turn. Raises ConfigError where there is no commit to stand on or `name` does not do.
    """
    root, top = Path.cwd(), _top()
    check_name(name)
    home = state_folder()
    os.environ[STATE_VARIABLE] = str(home)
    pin_locations()
    shutil.rmtree(experiment_copies(), ignore_errors=True)  # what a killed run left
    clone = experiment_copies() / name
    copy = clone / root.relative_to(top)
    preset = settings.preset.resolve() if settings.preset else None
    try:
        _clone(top, clone, without=(home, root / dvc_command.RAW))
        await dvc_command.share_cache(root, copy)
        with chdir(copy):
            _write_params(preset, settings.overrides)
            await dvc_command.bring_data(root)
            _link_what_settings_name(root)
            yield
            _lend_identity()
            await dvc_command.save_experiment(name)
        ref = _git("for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{name}", cwd=clone).strip()
        _git("fetch", "--quiet", str(clone), f"{ref}:{ref}", cwd=top)
        log.info("kept as DVC experiment %s: `dvc exp show` lists it, `dvc exp apply %s` brings it here", name, name)
    finally:
        shutil.rmtree(clone, ignore_errors=True)


def _top() -> Path:
    try:
        top = _git("rev-parse", "--show-toplevel").strip()
        _git("rev-parse", "--verify", "--quiet", "HEAD")
    except StateError:
        raise ConfigError(
            "a run with settings of its own becomes a DVC experiment, which stands on a git commit, and there is none "
            "here: `git init`, `git add -A` and `git commit` the project first"
        ) from None
    return Path(top).resolve()


def _clone(top: Path, clone: Path, *, without: Sequence[Path]) -> None:
    """The last commit with all that has changed since or is new, but neither what git ignores nor these folders."""
    _git("clone", "--quiet", "--shared", "--no-tags", str(top), str(clone))
    changes = _git("diff", "--binary", "HEAD", cwd=top)
    if changes:
        _git("apply", "--binary", "--whitespace=nowarn", "-", cwd=clone, words=changes)
    for name in _git("ls-files", "--others", "--exclude-standard", "-z", cwd=top).split("\0"):
        source = top / name
        if name and not any(source.is_relative_to(folder) for folder in without):
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, clone / name, follow_symlinks=False)


def _write_params(preset: Path | None, overrides: tuple[str, ...]) -> None:
    """Changes the values alone: comments and order stay, as `dvc exp apply` may bring the file back to the checkout."""
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


def _link_what_settings_name(root: Path) -> None:
    """A file or folder that a setting names and git ignores, such as a model, is in the checkout alone."""
    for value in _texts(read_params(PARAMS).model_dump(mode="json")):
        path = Path(value)
        if path.is_absolute() or ".." in path.parts or not value or path.exists() or not (root / path).exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(root / path)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


def _lend_identity() -> None:
    """Git makes no commit in nobody's name, and a machine that only runs things often knows none."""
    for key, value in (("user.name", "longreward"), ("user.email", "longreward@localhost")):
        try:
            _git("config", key)
        except StateError:
            _git("config", key, value)


def _git(*arguments: str, cwd: Path | None = None, words: str | None = None) -> str:
    """What the command prints; StateError with its complaint where it fails."""
    try:
        ended = subprocess.run(
            ["git", *arguments],
            cwd=cwd,
            input=words,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=True,
        )
    except FileNotFoundError:
        raise StateError("git is not installed, and experiments are kept in it") from None
    except subprocess.CalledProcessError as error:
        raise StateError(f"`git {' '.join(arguments[:2])}` failed: {error.stderr.strip()}") from None
    return ended.stdout
