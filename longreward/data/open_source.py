"""From what a setting names to records: a local path, a glob, or `hub:` and a name, each pinned in its way."""

import os
from pathlib import Path

from longreward.data.checksums import check_pin
from longreward.data.file_source import KINDS, FileSource, find_files
from longreward.data.hub_source import SCHEME, HubConfig, HubSource
from longreward.data.source_location import MAX_RECORD_MIB, Source
from longreward.data.text_files import WithTexts
from longreward.errors import ConfigError


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
        check_pin(files, key=key, pin_key=pin_key, pin=pin)
        return WithTexts(files)
    if hub is None:
        raise ConfigError(f"{key} is {name!r}: only files are read here")
    path = name.removeprefix(SCHEME)
    folder = Path(os.path.normpath(root / path))
    if folder.is_dir():
        inside = sorted(file for file in folder.rglob("*") if file.is_file() and not _is_hidden(file, folder))
        check_pin(FileSource(name, folder, tuple(inside), root), key=key, pin_key=pin_key, pin=pin)
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
