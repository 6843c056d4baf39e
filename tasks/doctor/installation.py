"""Python, the packages that this project stands on against the ranges that it was tested with, git."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from longreward.tasks.doctor.finding import Finding, bad, good, note

NAMED = ("torch", "transformers", "trl", "prefect", "mlflow", "dvc")


def check_installed() -> Iterator[Finding]:
    """Python, packages, git."""
    yield good("python", f"{'.'.join(map(str, sys.version_info[:3]))} at {sys.executable}")
    yield from _path()
    yield from _packages()
    yield _git()


def _path() -> Iterator[Finding]:
    found = shutil.which("python")
    if found is None or Path(found).parent.resolve() != Path(sys.executable).parent.resolve():
        activate = Path(sys.executable).with_name("activate")
        how = f"`. {activate}`" if activate.exists() else f"put {activate.parent} first on PATH"
        said = f"`python` on PATH is {found or 'nothing'}, not this Python, and `dvc repro` calls it"
        yield note("path", said, f"{how} before `dvc repro`; `longreward run` does without")


def _packages() -> Iterator[Finding]:
    try:
        wanted = [Requirement(line) for line in requires("longreward") or ()]
    except PackageNotFoundError:
        yield bad("packages", "longreward is not installed, only imported", "`pip install` it")
        return
    needed = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    wrong = list(filter(None, map(_out_of_range, needed)))
    yield from wrong
    if not wrong:
        versions = ", ".join(f"{name} {version(name)}" for name in NAMED)
        yield good("packages", f"all {len(needed)} are within the tested ranges: {versions}")


def _out_of_range(wanted: Requirement) -> Finding | None:
    install = f"`{sys.executable} -m pip install '{wanted.name}{wanted.specifier}'`"
    try:
        found = version(wanted.name)
    except PackageNotFoundError:
        return bad("packages", f"{wanted.name} is not installed", install)
    if wanted.specifier.contains(found, prereleases=True):
        return None
    return bad("packages", f"{wanted.name} {found} lies outside the tested range {wanted.specifier}", install)


def _git() -> Finding:
    if not shutil.which("git"):
        return bad("git", "not found on PATH, and DVC needs it", "install git")
    said = subprocess.run(["git", "--version"], capture_output=True, text=True, check=False, env={**os.environ})
    return good("git", said.stdout.strip().removeprefix("git version ") or "installed")
