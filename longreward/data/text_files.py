"""Questions beside their texts: a row may name a text's file in place of holding the text.

data/raw/questions.jsonl     {"idx": 0, "query": "Who signed?", "context_file": "documents/contract.txt"}
data/raw/documents/contract.txt
-->                          {"idx": 0, "query": "Who signed?", "context": "…", "document": "documents/contract.txt"}

Texts stay as they are, and questions can be written in any editor.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from longreward.data.checksums import RAW
from longreward.data.file_source import FileSource
from longreward.data.source_location import SourceLocation
from longreward.utils.jsonl import Row, RowError, too_large

FIELD = "context_file"


@dataclass(frozen=True)
class WithTexts:
    """The rows of `files`, each `context_file` replaced by its text and by the document's name, where that has none."""

    files: FileSource

    @property
    def name(self) -> str:
        """As the settings have it."""
        return self.files.name

    def rows(self) -> Iterator[tuple[SourceLocation, Row | RowError]]:
        """Each record, a RowError where its text cannot be had. The last text is kept: its questions stand together."""
        last: tuple[Path, str] | None = None
        for place, row in self.files.rows():
            if isinstance(row, RowError) or row.get(FIELD) is None or row.get("context") is not None:
                yield place, row
                continue
            try:
                path = self._path(place, row[FIELD])
                if last is None or last[0] != path:
                    last = path, _read(path, row[FIELD], int(self.files.max_record_mib * 2**20))
            except RowError as error:
                yield place, error
                continue
            document = row.get("document") or path.relative_to(self.files.root / RAW).as_posix()
            yield place, {**row, "context": last[1], "document": document}

    def columns(self) -> list[str]:
        """With what rows gain by their texts."""
        there = self.files.columns()
        return list(dict.fromkeys([*there, "context", "document"])) if FIELD in there else there

    def _path(self, place: SourceLocation, name: object) -> Path:
        """Relative to the file that names it; only where DVC keeps versions, since no checksum covers it."""
        if not isinstance(name, str) or not name.strip():
            raise RowError(f"{FIELD} is {name!r}, expected the name of a text file")
        path = Path(os.path.normpath((self.files.root / place.file).parent / name))
        if not path.is_relative_to(self.files.root / RAW):
            raise RowError(f"{FIELD} {name!r} is {path}, outside {RAW}, where nothing keeps its versions; put it there")
        return path


def _read(path: Path, name: str, max_bytes: int) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
            if len(content) > max_bytes:
                raise too_large(f"{FIELD} {name!r}", path.stat().st_size, max_bytes)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise RowError(f"{FIELD} {name!r} is not UTF-8 text (byte 0x{byte:02x} at {error.start})") from None
    except OSError as error:
        raise RowError(f"{FIELD} {name!r} cannot be read: {error.strerror or error} ({path})") from None
    if "\0" in text:
        raise RowError(
            f"{FIELD} {name!r} has a NUL character (at character {text.index(chr(0)):,}); is it a text file?"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")  # as files opened as text are read
