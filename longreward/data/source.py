"""Types shared by all sources of raw records, and the values that no source accepts in a record."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from longreward.errors import DataError
from longreward.utils.jsonl import MAX_KEYS, Row, RowError, find_surrogate

RAW = Path("data/raw")
SYNTHESIZED = Path("data/synthesized")

COLUMN_SAMPLE_ROWS = 100
"""Records from which a source without a schema takes its column names."""

LISTED_ROWS = 5  # in a message about rows that are left out

MAX_RECORD_MIB = 64.0
"""Default of `prepare.max_record_mib`: about 16 million tokens of English, more than any model reads."""


class SourceLocation(NamedTuple):
    """Where a record is: lines of text files count from 1, rows of all other sources from 0."""

    file: str
    unit: Literal["line", "row"]
    number: int

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.number}"

    def relative_to(self, file: str) -> str:
        """Return the location for a message about `file`: "line 4", or "line 4 of b.jsonl" from another file."""
        location = f"{self.unit} {self.number}"
        return location if self.file == file else f"{location} of {self.file}"


class Source(Protocol):
    """Records that can be read repeatedly, always in the same order."""

    @property
    def name(self) -> str:
        """The name in the settings."""

    def rows(self) -> Iterator[tuple[SourceLocation, Row | RowError]]:
        """Yield each record, or the reason why it cannot be read; raises DataError if reading cannot continue."""

    def columns(self) -> list[str]:
        """Return the column names of the schema, or of the first records; empty if unknown."""


RejectionKind = Literal["bad", "duplicate", "held_out", "over_limit", "over_window"]


@dataclass(frozen=True)
class RejectedRecord:
    """A raw record that is left out, with the reason."""

    location: SourceLocation
    idx: str | None
    reason: str
    kind: RejectionKind = "bad"

    def to_row(self) -> Row:
        """Return a line of rejected.jsonl."""
        return {
            "file": self.location.file,
            self.location.unit: self.location.number,
            "idx": self.idx,
            "reason": self.reason,
        }


def describe_rejected(rejected: Sequence[RejectedRecord], *, total: int) -> str:
    """Return how many of `total` rows are left out, with the first of them."""
    duplicates = sum(row.kind == "duplicate" for row in rejected)
    listed = "\n".join(f"  {row.location}: {row.reason}" for row in rejected[:LISTED_ROWS])
    return (
        f"{len(rejected)} of {total} rows are left out ({len(rejected) - duplicates} bad, {duplicates} repeated). The "
        f"first:\n{listed}"
    )


def recognize_format(row: Row, recognizers: Mapping[str, Callable[[Row], bool]], *, columns: str) -> str:
    """Return the first format that recognizes the row of a file.

    Raises DataError if none does; it advises to name the format, or `columns`.
    """
    for name, recognizes in recognizers.items():
        if recognizes(row):
            return name
    keys = ", ".join(map(str, list(row)[:MAX_KEYS]))
    raise DataError(
        f"the format is not known from the columns {keys}; name one with --format ({', '.join(recognizers)}), or the "
        f"columns of {columns}"
    )


# --- values -----------------------------------------------------------------------------------------------------------


def constant_error(name: str) -> RowError:
    """Return the value for NaN, Infinity or -Infinity, which Python's json module accepts and JSON does not have."""
    return RowError(f"{name} is not JSON; write null if there is no value")


def valid_row(value: Any) -> Row | RowError:
    """Return the record, or a RowError if it is no object or contains text that later stages cannot write.

    A reader may put a RowError in the place of a value that it could not read.
    """
    if isinstance(value, RowError):
        return value
    if not isinstance(value, dict):
        return RowError(f"a JSON {type(value).__name__}, expected an object")
    for column, leaf in _leaves(value):
        if isinstance(leaf, RowError):
            return RowError(f"{column!r}: {leaf}")
        if (reason := text_error(leaf)) is not None:
            return RowError(f"{column!r} {reason}")
    return value


def _leaves(row: Row) -> Iterator[tuple[str, str | RowError]]:
    """Yield every key, text and RowError of the record with its column. Not recursive, since records may be deep."""
    for column, value in row.items():
        yield column, column
        stack = [value]
        while stack:
            item = stack.pop()
            if isinstance(item, dict):
                stack += [*item.keys(), *item.values()]
            elif isinstance(item, list | tuple):
                stack += item
            elif isinstance(item, str | RowError):
                yield column, item


def text_error(text: str) -> str | None:
    """Return why later stages cannot write `text`, or None."""
    if (index := find_surrogate(text)) is not None:
        code = ord(text[index])
        if 0xDC80 <= code <= 0xDCFF:  # Python's "surrogateescape" of a byte that is not UTF-8
            return f"is not UTF-8 (byte 0x{code - 0xDC00:02x} at character {index:,})"
        return f"has half of a surrogate pair (U+{code:04X} at character {index:,}), which UTF-8 cannot hold; remove it"
    if (index := text.find("\0")) >= 0:
        return f"has a NUL character (at character {index:,}); remove it"
    return None
