"""What vouches for a source: DVC for what lies under data/raw and for what `synthesize` made, a pinned checksum for
what lies elsewhere.

`dvc repro` takes a changed external file without a word, so `prepare` looks at the checksum itself, before it reads.
"""

import hashlib
from pathlib import Path

from longreward.data.file_source import FileSource
from longreward.errors import ConfigError, DataError

RAW = Path("data/raw")
SYNTHESIZED = Path("data/synthesized")
PREFIX = "sha256:"


def check_pin(source: FileSource, *, key: str, pin_key: str, pin: str | None) -> None:
    """Raises DataError where the checksum is not `pin`, ConfigError where a source outside data/raw has none.

    `key` and `pin_key` are the settings that named the source and its checksum.
    """
    if pin is None and all(_is_versioned(path, source.root) for path in source.files):
        return
    found = checksum(source)
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


def checksum(source: FileSource) -> str:
    """Of one file, what `sha256sum FILE` says; of several, `sha256sum FILES | sha256sum`, called in their folder."""
    hashes = [sha256_of(path) for path in source.files]
    if len(hashes) == 1:
        return PREFIX + hashes[0]
    listing = hashlib.sha256()
    for path, found in zip(source.files, hashes, strict=True):
        listing.update(f"{found}  {path.relative_to(source.base).as_posix()}\n".encode("utf-8", "surrogateescape"))
    return PREFIX + listing.hexdigest()


def sha256_of(path: Path) -> str:
    """Of the file's bytes; DataError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _is_versioned(path: Path, root: Path) -> bool:
    """By its name alone: DVC may keep the bytes behind a link into its cache."""
    return any(path.is_relative_to(root / folder) for folder in (RAW, SYNTHESIZED))
