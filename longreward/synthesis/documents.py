"""Documents of a user: find the files, read one at a time, and split long texts into contexts."""

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
    """The text of a file; `name` is its path below data/raw."""

    name: str
    text: str


def find_documents(root: Path, name: str) -> list[Path]:
    """Return the file, the files of a folder and its subfolders, or the matches of a glob, sorted by name.

    Hidden files, and files of other types in a folder, are ignored. Raises ConfigError if the path is outside data/raw,
    where DVC tracks files, if there is no file, or if a library that reads them is not installed.
    """
    root = Path(os.path.normpath(root.absolute()))
    path = Path(os.path.normpath(root / name))
    if not path.is_relative_to(root / RAW):
        raise ConfigError(f"synthesize.documents is {name!r}, outside {RAW}, where it is not versioned; move it there")
    if path.is_dir():
        candidates = [file for file in path.rglob("*") if file.suffix.lower() in READERS]
    elif has_magic(name) and not path.exists():
        candidates = [Path(file) for file in glob(str(path), recursive=True)]
    else:
        candidates = [path]
    files = sorted(
        file
        for file in candidates
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(root).parts)
    )
    if not files:
        raise ConfigError(f"synthesize.documents: {name} contains no file of the types {', '.join(READERS)}")
    if unsupported := [file for file in files if file.suffix.lower() not in READERS]:
        raise ConfigError(f"synthesize.documents: {unsupported[0].name} is none of {', '.join(READERS)}")
    check_readers([file.suffix.lower() for file in files])
    return files


async def read_documents(root: Path, files: list[Path]) -> AsyncGenerator[Document | Dropped, None]:
    """Yield the text of each file in order, or the reason why it is dropped: unreadable, empty, or a duplicate.

    Files are read in a thread, so that running requests are not blocked.
    """
    base = Path(os.path.normpath(root.absolute())) / RAW
    # Documents with equal words are duplicates even if their file formats or line breaks differ.
    name_by_id: dict[str, str] = {}
    for file in files:
        name = file.relative_to(base).as_posix()
        try:
            text = await asyncio.to_thread(_read, file)
        except UnreadableFileError as error:
            yield Dropped(name, "unreadable_document", str(error))
            continue
        if not text:
            reason = "no text in it; is it a scan?" if file.suffix.lower() == ".pdf" else "no text in it"
            yield Dropped(name, "empty_document", reason)
            continue
        first_name = name_by_id.setdefault(document_id(text), name)
        if first_name != name:
            yield Dropped(name, "duplicate_document", f"the same words as {first_name}")
            continue
        yield Document(name, text)


def split_document(document: Document, config: SynthesizeConfig, tokenizer: TextTokenizer) -> list[Context | Dropped]:
    """Return the document, or parts of at most `max_tokens` that end at a paragraph or line if possible.

    A document or part of fewer than `min_tokens` is dropped. All parts have the language of the document.
    """
    language = detect_language(document.text)
    parts: list[Context | Dropped] = []
    for part, (start, end) in enumerate(_part_bounds(document.text, config.max_tokens, tokenizer)):
        text = document.text[start:end].strip()
        tokens = len(tokenizer.spans(text))
        if tokens < config.min_tokens:
            reason = f"{tokens:,} tokens; synthesize.min_tokens is {config.min_tokens:,}"
            parts.append(Dropped(document.name, "short", reason, part=part))
        else:
            parts.append(Context(document.name, part, text, language))
    return parts


def _read(file: Path) -> str:
    try:
        return read_text(file.read_bytes(), file.suffix.lower())
    except OSError as error:
        raise UnreadableFileError(f"cannot be read: {error.strerror or error}") from error


def _part_bounds(text: str, max_tokens: int, tokenizer: TextTokenizer) -> Iterator[tuple[int, int]]:
    spans = tokenizer.spans(text)
    if len(spans) <= max_tokens:
        yield 0, len(text)
        return
    start = 0
    # Each part starts where the previous one ended after it was moved to a break.
    while start < len(text):
        remaining = [(first - start, last - start) for first, last in spans if first >= start]
        end = start + split_tokens(len(text) - start, remaining, max_tokens)[0].end
        if end < len(text):
            # The last end of a paragraph, else of a line, in the second half of the part, so that parts have at least
            # half of the allowed length.
            breaks = [(text.rfind(separator, (start + end) // 2, end), separator) for separator in ("\n\n", "\n")]
            end = next((index + len(separator) for index, separator in breaks if index >= 0), end)
        yield start, end
        start = end
