"""A user's files, found and read one at a time, each named by its path below data/raw."""

import asyncio
import os
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path

from longreward.data.formats import document_id
from longreward.data.source import RAW
from longreward.errors import ConfigError
from longreward.retrieval.chunking import split_tokens
from longreward.synthesis.config import SynthesizeConfig
from longreward.synthesis.file_readers import READERS, UnreadableFileError, check_readers, read_text
from longreward.synthesis.records import Context, Dropped
from longreward.utils.language import detect_language
from longreward.utils.token_spans import TextTokenizer


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
        except UnreadableFileError as error:
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
        raise UnreadableFileError(f"cannot be read: {error.strerror or error}") from error


def _is_hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)


# Documents as contexts of a length: the short ones are left out, the long ones cut.


def split_document(
    document: Document, config: SynthesizeConfig, tokenizer: TextTokenizer
) -> Iterator[Context | Dropped]:
    """The document, or its parts of up to `max_tokens`, each cut at the end of a paragraph or line where one is near.

    What is left of fewer than `min_tokens` is dropped. The parts of a document have its language.
    """
    text = document.text
    language = detect_language(text)
    for part, (start, end) in enumerate(_bounds(text, config.max_tokens, tokenizer)):
        piece = text[start:end].strip()
        tokens = len(tokenizer.spans(piece))
        if tokens < config.min_tokens:
            reason = f"{tokens:,} tokens; synthesize.min_tokens is {config.min_tokens:,}"
            yield Dropped(document.name, "short", reason, part=part)
        else:
            yield Context(document.name, part, piece, language)


def _bounds(text: str, size: int, tokenizer: TextTokenizer) -> Iterator[tuple[int, int]]:
    start = 0
    spans = tokenizer.spans(text)
    if len(spans) <= size:
        yield 0, len(text)
        return
    while start < len(text):
        rest = [(a - start, b - start) for a, b in spans if a >= start]
        first = split_tokens(len(text) - start, rest, size)[0]
        end = start + first.end
        if end < len(text):
            end = _softened(text, start, end)
        yield start, end
        start = end


def _softened(text: str, start: int, end: int) -> int:
    """The last end of a paragraph in the second half, else of a line, else the place itself."""
    middle = (start + end) // 2
    for mark in ("\n\n", "\n"):
        place = text.rfind(mark, middle, end)
        if place >= 0:
            return place + len(mark)
    return end
