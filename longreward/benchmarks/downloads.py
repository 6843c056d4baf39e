"""Download the published files of the benchmarks with pooch, and locate them on disk.

    fetch(Path("data/benchmarks"), only=["mt_bench"])
    locate_files("mt_bench", Path("data/benchmarks"))["question.jsonl"]

`sources.yaml` lists all files with their addresses and SHA-256 checksums, or the id of their git blob. A file without a
SHA-256 is recorded in `files.lock.json` when it is first fetched, and checked against that later.
"""

import difflib
import hashlib
import json
import logging
import os
import shutil
import time
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit
from zipfile import BadZipFile, ZipFile

from pydantic import Field

from longreward.config import Config
from longreward.data.open_source import sha256_file
from longreward.errors import ConfigError, DataError, StateError
from longreward.utils.jsonl import open_atomic
from longreward.utils.plurals import pluralize

SOURCES = Path(__file__).parent / "sources.yaml"
FOLDER = Path("data/benchmarks")
LOCK_NAME = "files.lock.json"
ATTEMPTS = 3
TIMEOUT_S = 30
RETRIED_STATUSES = (408, 429)  # and all from 500 on
_FILE_SIGNATURES: dict[str, tuple[bytes, ...]] = {".zip": (b"PK",), ".json": (b"[", b"{"), ".jsonl": (b"{",)}


class Source(Config):
    """An entry of `sources.yaml`, with its benchmark and its path below the benchmark's folder."""

    benchmark: str
    name: str
    what: str
    addresses: tuple[str, ...]
    """Tried in order. Without an address the file has to be copied by hand."""
    sha256: str | None = Field(pattern=r"^[0-9a-f]{64}$")
    git_blob: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$")
    """git's object id of the content, which identifies a file of a repository whose SHA-256 is not known."""
    size: str
    licence: str
    needed: bool = True
    """False: the benchmark runs without it."""
    members: tuple[str, ...] = ()
    """The files that are extracted from an archive, next to it."""

    @property
    def key(self) -> str:
        """The path below the folder of all benchmarks, for example `mt_bench/question.jsonl`."""
        return f"{self.benchmark}/{self.name}"

    @property
    def files(self) -> tuple[str, ...]:
        """The files that the benchmark reads: the file itself or the members of the archive."""
        return self.members or (self.name,)


@dataclass(frozen=True)
class FetchResult:
    """The result for one file."""

    source: Source
    status: Literal["fetched", "present", "failed"]
    reason: str = ""
    recorded_sha256: str | None = None  # if it was recorded now

    @property
    def is_fatal(self) -> bool:
        """Whether the benchmark cannot run."""
        return self.status == "failed" and self.source.needed


class _FetchError(Exception):
    """A file could not be fetched."""


def read_sources(only: Sequence[str] = (), table: Path = SOURCES) -> tuple[Source, ...]:
    """Read the table, for all benchmarks or those named. Raises ConfigError for a name that it does not have."""
    import yaml

    rows = yaml.safe_load(table.read_text(encoding="utf-8"))
    for name in only:
        if name not in rows:
            matches = difflib.get_close_matches(name, rows, n=1)
            hint = f"did you mean {matches[0]}?" if matches else f"choose from {', '.join(rows)}"
            raise ConfigError(f"no benchmark {name!r} has files to fetch; {hint}")
    return tuple(
        Source.parse({**row, "benchmark": benchmark, "name": name}, source=f"{table.name}: {benchmark}/{name}")
        for benchmark, files in rows.items()
        if not only or benchmark in only
        for name, row in files.items()
    )


def locate_files(
    benchmark: str, folder: Path = FOLDER, table: Path = SOURCES, *, names: Collection[str] | None = None
) -> dict[str, Path]:
    """Return the paths of a benchmark's files, or of those in `names`. Contents are checked by `fetch`, not here.

    Raises DataError if a needed file is missing, with its path, its checksum and how to get it.
    """
    paths: dict[str, Path] = {}
    missing: list[str] = []
    checksums = recorded_checksums(folder)
    for source in read_sources([benchmark], table):
        for name in source.files:
            if names is not None and name not in names:
                continue
            path = folder / benchmark / name
            if path.is_file():
                paths[name] = path
            elif source.needed:
                missing.append(f"  {_describe(source, path, checksums)}")
    if missing:
        raise DataError(
            "\n".join([f"{benchmark}: {pluralize(len(missing), 'missing file')}:", *missing])
            + f"\nDownload them:  longreward benchmarks fetch --only {benchmark} --folder {folder}\n"
            "Without a network, copy the files to these paths, or name a folder that has them with --from"
        )
    return paths


def recorded_checksums(folder: Path) -> dict[str, str]:
    """Return the recorded checksums by key. Raises DataError if the lock file is malformed."""
    path = folder / LOCK_NAME
    try:
        checksums = json.loads(path.read_text(encoding="utf-8"))
        if not all(len(checksum) == 64 for checksum in checksums.values()):
            raise ValueError("an entry is not a SHA-256")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is not a lock file ({error}); restore it, or remove it to record the checksums again"
        ) from error
    return dict(checksums)


def fetch(
    folder: Path = FOLDER,
    *,
    only: Sequence[str] = (),
    mirror: str | None = None,
    local: Path | None = None,
    table: Path = SOURCES,
    progressbar: bool = False,
    retry_wait_s: float = 1.0,
) -> list[FetchResult]:
    """Fetch all files of the benchmarks, and check those that are present.

    Args:
        only: Names of benchmarks; default: all.
        mirror: Base address with the same layout as `folder`, instead of the addresses in the table.
        local: Folder to copy from, with the same layout as `folder` or with bare file names.
        retry_wait_s: Seconds between attempts. Proxies are read from the environment.

    Raises:
        ConfigError: An unknown benchmark or an invalid mirror.
        DataError: The lock file or `local` cannot be read.
        StateError: `folder` cannot be written.
    """
    if mirror is not None and local is not None:
        raise ConfigError("--mirror and --from exclude each other")
    if local is not None and not local.is_dir():
        raise DataError(f"--from {local} is not a folder")
    if mirror is not None:
        parts = urlsplit(mirror)
        if "@" in parts.netloc or parts.query:  # error messages contain addresses
            raise ConfigError("--mirror must not contain a user name, password or query (value not shown)")
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ConfigError(f"--mirror {mirror!r} is not an address like https://mirror.example/benchmarks")
        mirror = mirror.rstrip("/")
    recorded_checksums(folder)  # report a malformed lock file before the first download
    fetcher = _Fetcher(folder, mirror, local, progressbar, retry_wait_s)
    return [fetcher.fetch(source) for source in read_sources(only, table)]


@dataclass
class _Fetcher:
    folder: Path
    mirror: str | None
    local: Path | None
    progressbar: bool
    retry_wait_s: float

    def fetch(self, source: Source) -> FetchResult:
        path = self.folder / source.key
        try:
            expected = source.sha256 or recorded_checksums(self.folder).get(source.key)
            fetched = not (path.is_file() and (expected is None or sha256_file(path) == expected))
            if fetched:
                self._obtain(source, path, expected)
            recorded = self._record(source, path, fetched=fetched) if expected is None else None
            _extract(path, source.members)
        except _FetchError as error:
            target = _describe(source, path, recorded_checksums(self.folder))
            return FetchResult(source, "failed", f"{error}. Target: {target}")
        except OSError as error:
            raise StateError(
                f"{path} cannot be written: {error.strerror or error}; free disk space, give write permission, or use "
                "another --folder"
            ) from error
        return FetchResult(source, "fetched" if fetched else "present", recorded_sha256=recorded)

    def _obtain(self, source: Source, path: Path, expected: str | None) -> None:
        if self.local is not None:
            self._copy(source, path, expected)
            return
        addresses = (f"{self.mirror}/{source.key}",) if self.mirror else source.addresses
        if not addresses:
            problem = "is a different file" if path.is_file() else "has no known address and has to be copied by hand"
            raise _FetchError(f"{source.key} {problem}")
        reasons = []
        for address in addresses:
            try:
                self._download(address, path, expected)
                return
            except _FetchError as error:
                reasons.append(str(error))
        raise _FetchError("; ".join(dict.fromkeys(reasons)))

    def _copy(self, source: Source, path: Path, expected: str | None) -> None:
        assert self.local is not None
        candidates = (self.local / source.key, self.local / source.name, self.local / Path(source.name).name)
        origin = next((candidate for candidate in candidates if candidate.is_file()), None)
        if origin is None:
            raise _FetchError(f"{self.local} has neither {source.key} nor {Path(source.name).name}")
        if expected is not None and (actual := sha256_file(origin)) != expected:
            raise _FetchError(f"{origin} has sha256 {actual}, expected {expected}")
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        shutil.copyfile(origin, part)
        os.replace(part, path)

    def _download(self, address: str, path: Path, expected: str | None) -> None:
        """Download one file, with retries for failures that can be temporary."""
        import pooch
        from requests.exceptions import HTTPError, RequestException

        # pooch logs each download, and the checksum of each file without a known one, to stderr.
        pooch.get_logger().setLevel(logging.WARNING)
        downloader = pooch.HTTPDownloader(
            progressbar=self.progressbar, timeout=TIMEOUT_S, headers={"User-Agent": "longreward"}
        )
        # pooch's own `retry_if_failed` would also retry missing files and wrong checksums.
        reason = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(self.retry_wait_s)
            try:
                pooch.retrieve(address, expected, fname=path.name, path=path.parent, downloader=downloader)
                return
            except HTTPError as error:
                status = getattr(error.response, "status_code", 0)
                reason = f"{address}: HTTP {status}"
                if status < 500 and status not in RETRIED_STATUSES:
                    raise _FetchError(reason) from None
            except RequestException as error:  # no connection, or one that was closed during the download
                reason = f"{address}: {error}"
            except ValueError as error:  # pooch: the checksum does not match
                raise _FetchError(f"{address}: {error}") from None
        raise _FetchError(f"{reason}; {ATTEMPTS} attempts")

    def _record(self, source: Source, path: Path, *, fetched: bool) -> str:
        """Record the checksum of a file without a known one, unless it is obviously a different kind of file."""
        if not _has_signature(path):  # a sign-in page, for example, which some networks serve for any address
            size = path.stat().st_size
            if fetched:
                path.unlink()
            raise _FetchError(f"{source.key}: the content is not that of a {path.suffix} file ({size:,} bytes)")
        if source.git_blob is not None and (blob := git_blob_id(path)) != source.git_blob:
            if fetched:
                path.unlink()
            raise _FetchError(f"{source.key}: the content is the git blob {blob}, expected {source.git_blob}")
        checksum = sha256_file(path)
        # Read again: another process may have recorded other files.
        checksums = recorded_checksums(self.folder) | {source.key: checksum}
        with open_atomic(self.folder / LOCK_NAME) as file:
            file.write(json.dumps(dict(sorted(checksums.items())), indent=2) + "\n")
        return checksum


def git_blob_id(path: Path) -> str:
    """Return the id that git gives a file's content: the SHA-1 of a header and the bytes."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _extract(archive: Path, members: Sequence[str]) -> None:
    """Extract members next to the archive, unless they are present with the right size."""
    if not members:
        return
    try:
        with ZipFile(archive) as zip_file:
            for member in members:
                path = archive.parent / member
                if not path.is_file() or path.stat().st_size != zip_file.getinfo(member).file_size:
                    zip_file.extract(member, archive.parent)
    except KeyError as error:
        raise _FetchError(f"{archive} lacks a member: {error.args[0]}") from None
    except (BadZipFile, zlib.error, EOFError) as error:
        raise _FetchError(f"{archive} is not a valid zip archive ({error})") from None


def _describe(source: Source, path: Path, checksums: dict[str, str]) -> str:
    """Describe a missing file for copying by hand: path, checksum and address."""
    expected = source.sha256 or checksums.get(source.key)
    checksum = f"sha256 {expected}" if expected else "checksum unknown"
    if expected is None and source.git_blob is not None:
        checksum = f"git blob {source.git_blob}"
    archive = f"from {source.name}, " if source.members else ""
    address = source.addresses[0] if source.addresses else f"no known address: {source.what}"
    return f"{path} ({archive}{checksum}; {address})"


def _has_signature(path: Path) -> bool:
    """Whether the first bytes fit the file's suffix."""
    with path.open("rb") as file:
        start = file.read(512).removeprefix(b"\xef\xbb\xbf").lstrip()
    return not start.startswith(b"<") and start.startswith(_FILE_SIGNATURES.get(path.suffix, (b"",)))
