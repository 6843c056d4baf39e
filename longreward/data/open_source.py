"""From what a setting names to records: a local path, a glob, or `hub:` and a name, each pinned in its way."""

import hashlib
import os
from pathlib import Path

from longreward.data.file_source import KINDS, ContextFileSource, FileSource, find_files
from longreward.data.hub_source import SCHEME, HubConfig, HubSource
from longreward.data.source import MAX_RECORD_MIB, RAW, SYNTHESIZED, Source
from longreward.errors import ConfigError, DataError


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
    """Finds the records that the setting `key` names and holds them against their pin; reads none of them yet.

    `name` is relative to `root`; `hub:` is allowed where `hub` is given; longer records than `max_record_mib` of files
    that are read by lines are refused one by one. Raises ConfigError where nothing pins the
    source, DataError where it is not there or not what was pinned.
    """
    root = Path(os.path.normpath(root.absolute()))
    if not name.startswith(SCHEME):
        files = find_files(root, name, max_record_mib=max_record_mib)
        verify_checksum(files, key=key, pin_key=pin_key, pin=pin)
        return ContextFileSource(files)
    if hub is None:
        raise ConfigError(f"{key} is {name!r}: only files are read here")
    path = name.removeprefix(SCHEME)
    folder = Path(os.path.normpath(root / path))
    if folder.is_dir():
        inside = sorted(file for file in folder.rglob("*") if file.is_file() and not _is_hidden(file, folder))
        verify_checksum(FileSource(name, folder, tuple(inside), root), key=key, pin_key=pin_key, pin=pin)
        return HubSource(name, str(folder), hub)
    _check_remote(name, path, key=key, pin_key=pin_key, pin=pin, hub=hub)
    return HubSource(name, path, hub)


def _is_hidden(file: Path, folder: Path) -> bool:
    """Such as the `.cache` of a download and the `.git` of a clone, which `datasets` does not read either."""
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _check_remote(name: str, path: str, *, key: str, pin_key: str, pin: str | None, hub: HubConfig) -> None:
    if path.count("/") > 1 or path.startswith((".", "/", "~")) or path.endswith(KINDS):
        raise ConfigError(f"{key} is {name!r}: no such folder is here, and names on the hub are <owner>/<name>")
    if pin is not None:
        raise ConfigError(f"{pin_key} is for files; a data set of the hub is pinned by prepare.hub.revision")
    if hub.revision is None:
        raise ConfigError(
            f"{key} is {name!r}, and prepare.hub.revision is not set: without its commit the data could change under "
            f"the same name. Its page lists the commits (Files, History), as does\n"
            f"  git ls-remote https://huggingface.co/datasets/{path} HEAD"
        )


# What vouches for a source: DVC for what lies under data/raw and for what `synthesize` made, a pinned checksum for
# what lies elsewhere.
#
# `dvc repro` takes a changed external file without a word, so `prepare` looks at the checksum itself, before it reads.


PREFIX = "sha256:"


def verify_checksum(source: FileSource, *, key: str, pin_key: str, pin: str | None) -> None:
    """Raises DataError where the checksum is not `pin`, ConfigError where a source outside data/raw has none.

    `key` and `pin_key` are the settings that named the source and its checksum.
    """
    if pin is None and all(_is_versioned(path, source.root) for path in source.files):
        return
    found = source_checksum(source)
    if pin is None:
        raise ConfigError(
            f"{key} is {source.name!r}, outside {RAW}, where nothing keeps its versions: put it under {RAW}, or pin "
            f"what it holds now with\n  {pin_key}: {found}"
        )
    if found != pin:
        raise DataError(
            f"{source.files[0] if len(source.files) == 1 else source.name} is not what {pin_key} "
            f"says\n  expected {pin}\n  found    {found}\nGet the right file back, or set {pin_key} to what was found"
        )


def source_checksum(source: FileSource) -> str:
    """Of one file, what `sha256sum FILE` says; of several, `sha256sum FILES | sha256sum`, called in their folder."""
    hashes = [sha256_file(path) for path in source.files]
    if len(hashes) == 1:
        return PREFIX + hashes[0]
    listing = hashlib.sha256()
    for path, found in zip(source.files, hashes, strict=True):
        listing.update(f"{found}  {path.relative_to(source.base).as_posix()}\n".encode("utf-8", "surrogateescape"))
    return PREFIX + listing.hexdigest()


def sha256_file(path: Path) -> str:
    """Of the file's bytes; DataError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _is_versioned(path: Path, root: Path) -> bool:
    """By its name alone: DVC may keep the bytes behind a link into its cache."""
    return any(path.is_relative_to(root / folder) for folder in (RAW, SYNTHESIZED))
