"""A user's files, found and read one at a time, each named by its path below data/raw."""

import asyncio
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path

from longreward.data.checksums import RAW
from longreward.data.formats import document_id
from longreward.errors import ConfigError
from longreward.synthesis.file_readers import READERS, Unreadable, check_readers, read_text
from longreward.synthesis.records import Dropped


@dataclass(frozen=True)
class Document:
    """A file's text."""

    name: str
    text: str


def find_documents(root: Path, name: str) -> list[Path]:
    """The file, the folder's files with those of its subfolders, or the glob's, in the order of their names.

    Hidden files and other kinds in a folder are passed over. Raises ConfigError where they lie outside data/raw, where
    nothing keeps their versions, where there is none, or where a library that reads them is missing.
    """
    root = Path(os.path.normpath(root.absolute()))
    path = Path(os.path.normpath(root / name))
    if not path.is_relative_to(root / RAW):
        raise ConfigError(
            f"synthesize.documents is {name!r}, outside {RAW}, where nothing keeps versions; put it there"
        )
    if path.is_dir():
        found = [file for file in path.rglob("*") if file.suffix.lower() in READERS]
    elif has_magic(name) and not path.exists():
        found = [Path(file) for file in glob(str(path), recursive=True)]
    else:
        found = [path]
    files = sorted(file for file in found if file.is_file() and not _is_hidden(file, root))
    if not files:
        raise ConfigError(f"synthesize.documents: {name} holds no file of the kinds {', '.join(READERS)}")
    if other := [file for file in files if file.suffix.lower() not in READERS]:
        raise ConfigError(f"synthesize.documents: {other[0].name} is none of {', '.join(READERS)}")
    check_readers([file.suffix.lower() for file in files])
    return files


async def read_documents(root: Path, files: list[Path]) -> AsyncGenerator[Document | Dropped, None]:
    """Each file's text in order, or why it is left out: nothing to read, or the words of an earlier one.

    Files are read in a thread, so that calls under way go on.
    """
    base = Path(os.path.normpath(root.absolute())) / RAW
    name_of_text: dict[str, str] = {}
    for file in files:
        name = file.relative_to(base).as_posix()
        try:
            text = await asyncio.to_thread(_read, file)
        except Unreadable as error:
            yield Dropped(name, "unreadable_document", str(error))
            continue
        if not text:
            why = "no text in it; is it a scan?" if file.suffix.lower() == ".pdf" else "no text in it"
            yield Dropped(name, "empty_document", why)
            continue
        first = name_of_text.setdefault(document_id(text), name)
        if first != name:
            yield Dropped(name, "duplicate_document", f"the same words as {first}")
            continue
        yield Document(name, text)


def _read(file: Path) -> str:
    try:
        return read_text(file.read_bytes(), file.suffix.lower())
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror or error}") from error


def _is_hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)
