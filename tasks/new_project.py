"""A new project folder: files, git, DVC; all of it, or nothing at all."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from longreward.errors import ConfigError, StateError
from longreward.tasks.dvc_command import DVC, RAW
from longreward.tasks.file_transaction import rollback_on_error

# Where one of these is there already, somebody keeps something in it.
OURS = (Path(".dvc"), RAW, RAW.with_name(RAW.name + ".dvc"), Path("models/tiny-base"))
FIRST = "A new longreward project"
CONFIG = "[core]\n    analytics = false\n    autostage = false\n    check_update = false\n"
IMPORTED = ("longreward", "tasks", "flows", "prefect", "mlflow", "dvc", "torch", "transformers", "trl", "datasets")


@dataclass(frozen=True)
class NewProject:
    """What was made. Where it is not `committed`, `advice` says why and how."""

    folder: Path
    files: tuple[PurePosixPath, ...]
    committed: bool
    advice: str


def new_project(folder: Path, files: Mapping[PurePosixPath, bytes]) -> NewProject:
    """Writes the files into `folder`, makes it a git and DVC repository where it is none, and puts its data under DVC.

    A new git repository gets a first commit; in one that was there nothing is committed. Raises ConfigError where the
    place will not do or something is in the way, StateError where writing, git or DVC fails: then all is as it was.
    """
    folder = folder.resolve()
    _check_place(folder, files)
    top = _git_top(folder)
    with rollback_on_error() as made:
        for name, content in files.items():
            made.write(folder / name, content)
        if top is None:
            made.trees.append(folder / ".git")
            _run(folder, "git", "init", "--quiet")
        else:  # `dvc init` puts its own files into git's index
            unstage = ("rm", "-r", "--quiet", "--force", "--cached", "--ignore-unmatch", ".dvc", ".dvcignore")
            made.before.append(partial(_git, folder, *unstage))
        made.trees.append(folder / ".dvc")
        _run(folder, *DVC, "init", "--quiet", *([] if top in (None, folder) else ["--subdir"]))
        (folder / ".dvc/config").write_text(CONFIG, encoding="utf-8")
        made.files.append(folder / RAW.with_name(RAW.name + ".dvc"))
        _run(folder, *DVC, "add", "--quiet", str(RAW))
        ours = [str(name) for name in files if not name.is_relative_to(RAW)]  # nothing that lay here before
        committed, advice = _commit(folder, [*ours, ".dvc", f"{RAW}.dvc"], new=top is None)
    return NewProject(folder, tuple(files), committed, advice)


def shadows(folder: Path) -> list[Path]:
    """What lies in `folder` under the name of a module that the stages import from elsewhere.

    `python -m longreward.flows.<stage>` looks into the project's folder first, so that it would find these instead.
    """
    if folder.resolve() == Path(__file__).resolve().parents[1]:
        return []  # the checkout that the modules come from
    own = [folder / name for module in IMPORTED for name in (f"{module}.py", f"{module}/__init__.py")]
    return [path for path in own if path.exists()]


def _check_place(folder: Path, files: Mapping[PurePosixPath, bytes]) -> None:
    if not shutil.which("git"):
        raise ConfigError("git is not installed (or not on PATH); DVC needs it")
    if ".git" in folder.parts:
        raise ConfigError(f"{folder} lies in git's own folder; name another one")
    above = next(place for place in (folder, *folder.parents) if place.exists() or place.is_symlink())
    if not above.is_dir():
        raise ConfigError(f"{above} is a file; name a folder")
    wanted = [*OURS, *(Path(name) for name in files if not name.is_relative_to(RAW) and "tiny-base" not in name.parts)]
    in_the_way = [str(name) for name in wanted if os.path.lexists(folder / name) and not _is_empty(folder / name)]
    if in_the_way:
        raise ConfigError(
            f"{folder} has {', '.join(sorted(in_the_way))} already, and nothing is overwritten: name a new folder, "
            "as in `longreward init my-project`, or move them aside first"
        )
    if shadowing := shadows(folder):
        raise ConfigError(
            f"{shadowing[0]} would be imported in place of the installed module of that name; rename it first"
        )
    top = _git_top(folder)
    if top and _git(above, "check-ignore", "--quiet", str(folder / "params.yaml")).returncode == 0:
        raise ConfigError(f"the git repository {top} ignores {folder}; name a folder that it does not ignore")


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _git_top(folder: Path) -> Path | None:
    """The git repository that `folder`, which need not exist, lies in."""
    above = next(place for place in (folder, *folder.parents) if place.is_dir())
    said = _git(above, "rev-parse", "--show-toplevel")
    return Path(said.stdout.strip()).resolve() if said.returncode == 0 else None


def _commit(folder: Path, ours: list[str], *, new: bool) -> tuple[bool, str]:
    if not new:
        return False, "commit it when you like: `git add . && git commit -m 'A new longreward project'`"
    if _git(folder, "-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT").returncode:
        return False, (
            "git does not know who you are, so nothing is committed: `git config --global user.name 'You'`, "
            "`git config --global user.email you@example.org`, then `git add . && git commit -m 'A new project'`"
        )
    _run(folder, "git", "add", "--", *ours)
    _run(folder, "git", "commit", "--quiet", "--no-verify", "--no-gpg-sign", "-m", FIRST)
    return True, ""


def _run(folder: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        words = (done.stderr or done.stdout).strip()
        raise StateError(f"`{' '.join(_plain(command))}` failed, and nothing was made: {words}")


def _plain(command: Sequence[str]) -> list[str]:
    return ["dvc", *command[len(DVC) :]] if tuple(command[: len(DVC)]) == DVC else list(command)


def _git(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
