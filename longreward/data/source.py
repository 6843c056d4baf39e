"""Where a record stands, as an editor or a parquet viewer counts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from longreward.utils.jsonl import Row, RowError, find_surrogate


class SourceLocation(NamedTuple):
    """Lines of a text file count from 1, rows of everything else from 0."""

    file: str
    unit: Literal["line", "row"]
    number: int

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.number}"

    def within(self, file: str) -> str:
        """The words for it in a sentence about `file`: "line 4", or "line 4 of b.jsonl" from another one."""
        here = f"{self.unit} {self.number}"
        return here if self.file == file else f"{here} of {self.file}"


class Source(Protocol):
    """Records that can be read more than once, always in the same order."""

    @property
    def name(self) -> str:
        """As the settings have it."""

    def rows(self) -> Iterator[tuple[SourceLocation, Row | RowError]]:
        """Each record, or why it cannot be read as one; DataError where nothing more can be read at all."""

    def columns(self) -> list[str]:
        """The names of the fields: of the schema, or seen in the first `LOOKED_AT` records. Empty: unknown."""


RAW = Path("data/raw")
SYNTHESIZED = Path("data/synthesized")
COLUMN_SAMPLE_ROWS = 100  # records whose fields are listed where no schema names them


# What every source refuses in a record, whichever reader it comes from: values that no later stage could write.


MAX_RECORD_MIB = 64.0
"""Default of `prepare.max_record_mib`: some 16 million tokens of English, more than any model reads."""


def refuse_constant(name: str) -> Any:
    """Raise RowError for NaN, Infinity or -Infinity: Python's json module reads and writes them, JSON has none."""
    raise RowError(f"{name} is not JSON; write null where there is no value")


def valid_row(value: Any) -> Row | RowError:
    """The record itself, or why it cannot be used: no object, a lone surrogate, a NUL character, or what a reader left.

    A reader may put a RowError in the place of a value that it could not read.
    """
    if isinstance(value, RowError):
        return value
    if not isinstance(value, dict):
        return RowError(f"a JSON {type(value).__name__}, expected an object")
    for key, found in _leaves(value):
        if isinstance(found, RowError):
            return RowError(f"{key!r}: {found}")
        if (reason := _bad_text(found)) is not None:
            return RowError(f"{key!r} {reason}")
    return value


def _leaves(row: Row) -> Iterator[tuple[str, Any]]:
    """Every text, key and RowError in the record, with the name of its column; not recursive: records may be deep."""
    for column, value in row.items():
        yield column, column
        stack = [value]
        while stack:
            each = stack.pop()
            if isinstance(each, dict):
                stack += [*each.keys(), *each.values()]
            elif isinstance(each, list | tuple):
                stack += each
            elif isinstance(each, str | RowError):
                yield column, each


def _bad_text(text: str) -> str | None:
    if (at := find_surrogate(text)) is not None:
        code = ord(text[at])
        if 0xDC80 <= code <= 0xDCFF:  # how Python's "surrogateescape" keeps a byte that is not UTF-8
            return f"is not UTF-8 (byte 0x{code - 0xDC00:02x} at character {at:,})"
        return f"has half of a surrogate pair (U+{code:04X} at character {at:,}), which UTF-8 cannot hold; remove it"
    if (at := text.find("\0")) >= 0:
        return f"has a NUL character (at character {at:,}); remove it"
    return None
