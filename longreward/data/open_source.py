"""Open the records that a setting names: a path, a glob, or `hub:` and a name, each pinned to a version.

DVC tracks what is below data/raw and data/synthesized. Other files need a checksum in the settings, because `dvc repro`
accepts a changed external file without a warning. Data sets of the hub need a commit.
"""

import hashlib
import os
from pathlib import Path

from longreward.data.file_source import FORMATS, FileSource, find_files
from longreward.data.hub_source import SCHEME, HubConfig, HubSource, hub_section
from longreward.data.source import MAX_RECORD_MIB, RAW, SYNTHESIZED, Source
from longreward.errors import ConfigError, DataError

CHECKSUM_PREFIX = "sha256:"


def open_source(
    root: Path,
    name: str,
    *,
    key: str,
    pin_key: str,
    pin: str | None,
    hub: HubConfig | None = None,
    max_record_mib: float = MAX_RECORD_MIB,
) -> Source:
    """Find the records called `name` and verify their pin; reads no records yet.

    Args:
        root: The project's folder, to which `name` is relative.
        key: The setting that contains `name`, for error messages.
        pin_key: The setting that contains `pin`.
        pin: The expected checksum of files, as `source_checksum` computes it.
        hub: The settings of a hub data set; None if only files are allowed.
        max_record_mib: Larger records of files that are read line by line are rejected individually.

    Raises ConfigError if nothing pins the source, DataError if it does not exist or differs from its pin.
    """
    root = Path(os.path.normpath(root.absolute()))
    if not name.startswith(SCHEME):
        files = find_files(root, name, max_record_mib=max_record_mib)
        verify_checksum(files, key=key, pin_key=pin_key, pin=pin)
        return files
    if hub is None:
        raise ConfigError(f"{key} is {name!r}: only files are allowed here")
    path = name.removeprefix(SCHEME)
    folder = Path(os.path.normpath(root / path))
    if folder.is_dir():
        # Hidden files are those that `datasets` ignores too: the `.cache` of a download, the `.git` of a clone.
        visible = sorted(
            file
            for file in folder.rglob("*")
            if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
        )
        verify_checksum(FileSource(name, folder, tuple(visible), root), key=key, pin_key=pin_key, pin=pin)
        return HubSource(name, str(folder), hub, key)
    hub_key = hub_section(key)
    if path.count("/") > 1 or path.startswith((".", "/", "~")) or path.endswith(FORMATS):
        raise ConfigError(f"{key} is {name!r}: there is no such folder, and names on the hub are <owner>/<name>")
    if pin is not None:
        raise ConfigError(f"{pin_key} is for files; a data set of the hub is pinned by {hub_key}.revision")
    if hub.revision is None:
        raise ConfigError(
            f"{key} is {name!r}, and {hub_key}.revision is not set: without its commit the data could change under "
            f"the same name. Print the current commit with\n"
            f"  git ls-remote https://huggingface.co/datasets/{path} HEAD"
        )
    return HubSource(name, path, hub, key)


def verify_checksum(source: FileSource, *, key: str, pin_key: str, pin: str | None) -> None:
    """Raise DataError if the checksum is not `pin`, ConfigError if files that DVC does not track have no pin."""
    # Compared by name: DVC may replace a file by a link into its cache.
    tracked = [source.root / folder for folder in (RAW, SYNTHESIZED)]
    if pin is None and all(any(path.is_relative_to(folder) for folder in tracked) for path in source.files):
        return
    actual = source_checksum(source)
    if pin is None:
        raise ConfigError(
            f"{key} is {source.name!r}, outside {RAW}, where it is not versioned: put it under {RAW}, or pin its "
            f"present content with\n  {pin_key}: {actual}"
        )
    if actual != pin:
        raise DataError(
            f"{source.files[0] if len(source.files) == 1 else source.name} differs from {pin_key}\n"
            f"  expected {pin}\n  actual   {actual}\nRestore the right file, or set {pin_key} to the actual value"
        )


def source_checksum(source: FileSource) -> str:
    """Return what `sha256sum FILE` prints for one file, or `sha256sum FILES | sha256sum` for several in a folder."""
    hashes = [sha256_file(path) for path in source.files]
    if len(hashes) == 1:
        return CHECKSUM_PREFIX + hashes[0]
    listing = hashlib.sha256()
    for path, digest in zip(source.files, hashes, strict=True):
        listing.update(f"{digest}  {path.relative_to(source.base).as_posix()}\n".encode("utf-8", "surrogateescape"))
    return CHECKSUM_PREFIX + listing.hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 hash of a file; raises DataError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
