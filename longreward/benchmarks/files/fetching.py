"""Fetching the benchmarks' files: each under another name until its checksum was found right, then at its place.

A file whose checksum is not in the table is recorded in the lock at its first fetch, and held to that from then on.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from longreward.benchmarks.files.archive import BadArchive, unpack
from longreward.benchmarks.files.download import Broken, NotThere, OutOfReach, download, host, writing_to
from longreward.benchmarks.files.lock import Lock
from longreward.benchmarks.files.places import FOLDER, wanted
from longreward.benchmarks.files.table import TABLE, Source, read_table
from longreward.data.open_source import sha256_file
from longreward.errors import ConfigError, DataError

Tell = Callable[[Source, int], None]


@dataclass(frozen=True)
class Outcome:
    """What became of one file."""

    source: Source
    state: Literal["fetched", "there", "failed"]
    reason: str = ""
    recorded: str | None = None  # the checksum, where the table has none

    @property
    def is_bad(self) -> bool:
        """Whether a benchmark cannot run for it."""
        return self.state == "failed" and self.source.needed


class _Failed(Exception):
    """This file cannot be had; the text says why."""


def fetch(
    folder: Path = FOLDER,
    *,
    only: Sequence[str] = (),
    mirror: str | None = None,
    local: Path | None = None,
    table: Path = TABLE,
    tell: Tell = lambda source, size: None,
    pause_s: float = 1.0,
) -> list[Outcome]:
    """Brings every file of the benchmarks named (none: of all) into `folder`, and says what became of each.

    `mirror` is an address below which the files lie as they do in `folder`; `local` a folder that holds them so, or by
    their bare names. Raises ConfigError for a wrong name or address, StateError where the disk refuses, DataError
    where the lock or `local` cannot be read.
    """
    if mirror is not None and local is not None:
        raise ConfigError("give a mirror or a local folder, not both")
    if local is not None and not local.is_dir():
        raise DataError(f"--from {local} is no folder")
    prefix = None if mirror is None else _plain(mirror)
    job = _Job(folder, Lock(folder), prefix, local, tell, pause_s)
    return [job.outcome(source) for source in read_table(only, table)]


class _Job:
    """What one call knows while it goes from file to file."""

    def __init__(
        self, folder: Path, lock: Lock, mirror: str | None, local: Path | None, tell: Tell, pause_s: float
    ) -> None:
        self._folder, self._lock, self._mirror, self._local = folder, lock, mirror, local
        self._tell, self._pause_s = tell, pause_s
        self._down: dict[str, str] = {}  # servers that could not be reached, which are not waited for again

    def outcome(self, source: Source) -> Outcome:
        place = self._folder / source.key
        try:
            state: Literal["fetched", "there"] = "there" if self._is_there(source, place) else "fetched"
            if state == "fetched":
                self._bring(source, place)
            unpack(place, source.members)
        except (_Failed, BadArchive) as failure:
            where = wanted(source, place, self._lock)
            return Outcome(source, "failed", f"{failure}. It goes to {where}")
        recorded = self._lock.checksum(source.key) if source.sha256 is None else None
        return Outcome(source, state, recorded=recorded)

    def _expected(self, source: Source) -> str | None:
        return source.sha256 or self._lock.checksum(source.key)

    def _is_there(self, source: Source, place: Path) -> bool:
        """Whether the right file is at its place; one that was put there by hand is recorded as a fetched one is."""
        if not place.is_file():
            return False
        self._check(source, place, f"the file at {place}", at_place=True)
        return True

    def _bring(self, source: Source, place: Path) -> None:
        part = place.with_name(f".{place.name}.part")
        if self._local is not None:
            origin = next((p for p in (self._local / source.key, self._local / source.name) if p.is_file()), None)
            if origin is None:
                raise _Failed(f"{self._local} holds neither {source.key} nor {source.name}")
            with writing_to(part):
                part.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(origin, part)
            return self._keep(source, part, place, str(origin))
        addresses = (f"{self._mirror}/{source.key}",) if self._mirror else source.addresses
        if not addresses:
            raise _Failed("no address of it is known, it has to be brought by hand")
        failures = []
        for address in addresses:
            try:
                return self._from(address, source, part, place)
            except _Failed as failure:
                failures.append(str(failure))
        raise _Failed("; ".join(dict.fromkeys(failures)))

    def _from(self, address: str, source: Source, part: Path, place: Path) -> None:
        if host(address) in self._down:
            raise _Failed(self._down[host(address)])
        resumed = part.exists()
        try:
            download(address, part, tell=lambda size: self._tell(source, size), pause_s=self._pause_s)
        except NotThere as error:
            raise _Failed(f"{address}: {error}") from None
        except OutOfReach as error:
            if not isinstance(error, Broken):
                self._down[host(address)] = str(error)
            raise _Failed(f"{error}{'' if not part.exists() else '; the same command goes on from there'}") from None
        try:
            self._keep(source, part, place, address)
        except _Failed:
            if not resumed:
                raise
            self._from(address, source, part, place)  # the part was of another file: once more from the start

    def _keep(self, source: Source, part: Path, place: Path, origin: str) -> None:
        """Moves the whole file to its place; a wrong one is removed."""
        try:
            self._check(source, part, origin)
        except _Failed:
            part.unlink(missing_ok=True)
            raise
        with writing_to(place):
            os.replace(part, place)

    def _check(self, source: Source, path: Path, origin: str, *, at_place: bool = False) -> None:
        expected, found, size = self._expected(source), sha256_file(path), path.stat().st_size
        if expected is None:
            if not _looks_right(path, source.name):  # a sign-in page, as some networks serve for any address
                raise _Failed(f"{origin} is no {Path(source.name).suffix} file ({size:,} bytes); nothing was recorded")
            self._lock.record(source.key, sha256=found, size=size, address=origin)
        elif found != expected:
            whose = "the table" if source.sha256 else f"{self._lock.path}, from its first fetch,"
            advice = "; move it aside to fetch it anew" if at_place else ""
            raise _Failed(
                f"{origin} is not what {whose} says (expected sha256 {expected}, found {found}, {size:,} bytes){advice}"
            )


def _plain(mirror: str) -> str:
    """The mirror's address, which must hold no secret: addresses are kept in the lock."""
    parts = urlsplit(mirror)
    if "@" in parts.netloc or parts.query:
        raise ConfigError("--mirror must hold no user, password or query; its value is not shown here")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError(f"--mirror {mirror!r} is no address like https://mirror.example/benchmarks")
    return mirror.rstrip("/")


def _looks_right(path: Path, name: str) -> bool:
    """Whether the file begins as one of its name does; all that can be said before a checksum is known."""
    with path.open("rb") as file:
        beginning = file.read(512).removeprefix(b"\xef\xbb\xbf").lstrip()
    return not beginning.startswith(b"<") and beginning.startswith(_BEGINNINGS.get(Path(name).suffix, (b"",)))


_BEGINNINGS: dict[str, tuple[bytes, ...]] = {".zip": (b"PK",), ".json": (b"[", b"{"), ".jsonl": (b"{",)}
