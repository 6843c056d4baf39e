"""CSV files, a record at a time: the first line names the columns, an empty cell is a missing value.

Python's csv module reads them, since the line of a bad record must be known and the others must go on; pandas and
pyarrow give up a whole file or block.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from longreward.errors import DataError
from longreward.utils.jsonl import DECOMPRESSION_ERRORS, UTF_16, Row, RowError, open_binary, read_line, size_error


def read_csv(path: Path, *, max_record_bytes: int) -> Iterator[tuple[int, Row | RowError]]:
    """Yield (line number from 1 of the record's first line, record or why it cannot be read).

    All values are texts. Raises DataError where the file cannot be read, its header is unusable, or a record that
    spans several lines is too large: after a quote that is never closed, no later line could be told apart.
    """
    try:
        # The module's limit of 131,072 characters a cell is global; a document is longer.
        csv.field_size_limit(max(csv.field_size_limit(), max_record_bytes))
        with open_binary(path) as file:
            yield from _records(path, file, max_record_bytes)
    except DECOMPRESSION_ERRORS as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _records(path: Path, file: IO[bytes], limit: int) -> Iterator[tuple[int, Row | RowError]]:
    lines = _Lines(path, file, limit)
    reader = csv.reader(lines, strict=True)
    header, found = None, False
    for line, cells in _parsed(reader, lines):
        if cells == []:  # a blank line
            continue
        if header is None:
            header = _header(path, cells)
        elif isinstance(cells, RowError):
            found = True
            yield line, cells
        elif len(cells) == len(header):
            found = True
            yield line, {name: cell or None for name, cell in zip(header, cells, strict=True)}
        else:
            found = True
            yield line, RowError(f"{len(cells)} cells, and the header has {len(header)}; is a quote or comma missing?")
    if not found:
        raise DataError(f"{path} is empty; expected a line of column names and one record or more")


def _parsed(reader: "Iterator[list[str]]", lines: "_Lines") -> Iterator[tuple[int, list[str] | RowError]]:
    while True:
        first = lines.begin()
        try:
            yield first, next(reader)
        except StopIteration:
            return
        except RowError as error:
            yield first, error
        except csv.Error as error:  # the reader goes on with the next line
            yield first, RowError(f"not CSV ({error})")


def _header(path: Path, cells: list[str] | RowError) -> list[str]:
    if isinstance(cells, RowError):
        raise DataError(f"{path}, line 1: {cells}")
    if twice := {name for name in cells if cells.count(name) > 1}:
        raise DataError(f"{path}, line 1: the column names {', '.join(map(repr, sorted(twice)))} come twice")
    if len(cells) == 1 and ";" in cells[0]:
        raise DataError(f"{path}, line 1: the columns are separated by semicolons; save it with commas")
    return cells


class _Lines(Iterator[str]):
    """The lines as text. A byte that is not UTF-8 becomes a lone surrogate, which `valid_row` refuses with the record:
    an error here would leave the reader in the middle of a record."""

    def __init__(self, path: Path, file: IO[bytes], limit: int) -> None:
        self._path = path
        self._file = file
        self._limit = limit
        self._number = 0
        self._first = 1
        self._size = 0

    def begin(self) -> int:
        """Starts a record; returns the number of its first line."""
        self._first, self._size = self._number + 1, 0
        return self._first

    def __next__(self) -> str:
        line = read_line(self._file, self._limit)
        if not line:
            raise StopIteration
        self._number += 1
        if isinstance(line, RowError) and self._number == self._first:
            raise line
        size = self._limit + 1 if isinstance(line, RowError) else len(line)
        self._size += size
        if isinstance(line, RowError) or self._size > self._limit:
            reason = size_error("the record", self._size, self._limit)
            raise DataError(f"{self._path}, line {self._first}: {reason}; is one of its quotes never closed?")
        if self._number == 1 and line.startswith(UTF_16):
            raise DataError(f"{self._path} is UTF-16; save it as UTF-8")
        return line.decode("utf-8-sig" if self._number == 1 else "utf-8", "surrogateescape")
