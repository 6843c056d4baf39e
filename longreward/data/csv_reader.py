"""CSV files, read one record at a time. The first line names the columns; an empty cell is a missing value.

Python's csv module is used because a bad record must be reported with its line and must not stop the others. pandas and
pyarrow give up a whole file or block.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from longreward.errors import DataError
from longreward.utils.jsonl import DECOMPRESSION_ERRORS, UTF_16, Row, RowError, open_binary, read_line, size_error


def read_csv(path: Path, *, max_record_bytes: int) -> Iterator[tuple[int, Row | RowError]]:
    """Yield (line number from 1 of the record's first line, record or the reason why it cannot be read).

    All values are strings. Raises DataError if the file cannot be read, if its header is unusable, or if a record of
    several lines is too large: after a quote that is never closed, the following records cannot be recognized.
    """
    try:
        # The module's limit of 131,072 characters per cell is global; documents are longer.
        csv.field_size_limit(max(csv.field_size_limit(), max_record_bytes))
        with open_binary(path) as file:
            records = _parse(_LineReader(path, file, max_record_bytes))
            records = ((line, cells) for line, cells in records if cells != [])  # without blank lines
            header = _check_header(path, next(records, (1, []))[1])
            empty = True
            for line, cells in records:
                empty = False
                if isinstance(cells, RowError):
                    yield line, cells
                elif len(cells) == len(header):
                    # CSV cannot distinguish an empty text from a missing value.
                    yield line, {name: cell or None for name, cell in zip(header, cells, strict=True)}
                else:
                    reason = f"{len(cells)} cells, and the header has {len(header)}; is a quote or comma missing?"
                    yield line, RowError(reason)
    except DECOMPRESSION_ERRORS as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if empty:
        raise DataError(f"{path} is empty; expected a line of column names and at least one record")


def _parse(lines: "_LineReader") -> Iterator[tuple[int, list[str] | RowError]]:
    reader = csv.reader(lines, strict=True)
    while True:
        # csv.reader fetches lines by itself, so the start of a record is only known before it is read.
        first_line = lines.start_record()
        try:
            yield first_line, next(reader)
        except StopIteration:
            return
        except RowError as error:
            yield first_line, error
        except csv.Error as error:  # the reader continues with the next line
            yield first_line, RowError(f"not CSV ({error})")


def _check_header(path: Path, cells: list[str] | RowError) -> list[str]:
    if isinstance(cells, RowError):
        raise DataError(f"{path}, line 1: {cells}")
    if duplicates := {name for name in cells if cells.count(name) > 1}:
        raise DataError(f"{path}, line 1: duplicate column names {', '.join(map(repr, sorted(duplicates)))}")
    if len(cells) == 1 and ";" in cells[0]:
        raise DataError(f"{path}, line 1: the columns are separated by semicolons; save it with commas")
    return cells


class _LineReader(Iterator[str]):
    """Decoded lines of a file for csv.reader, with a limit on the size of a record.

    A byte that is not UTF-8 becomes a lone surrogate, which `valid_row` rejects with the record. An exception here
    would leave csv.reader in the middle of a record.
    """

    def __init__(self, path: Path, file: IO[bytes], max_bytes: int) -> None:
        self._path = path
        self._file = file
        self._max_bytes = max_bytes
        self._line = 0
        self._first_line = 1
        self._record_bytes = 0

    def start_record(self) -> int:
        """Start a record and return the number of its first line."""
        self._first_line, self._record_bytes = self._line + 1, 0
        return self._first_line

    def __next__(self) -> str:
        line = read_line(self._file, self._max_bytes)
        if not line:
            raise StopIteration
        self._line += 1
        if isinstance(line, RowError) and self._line == self._first_line:
            raise line
        self._record_bytes += self._max_bytes + 1 if isinstance(line, RowError) else len(line)
        if isinstance(line, RowError) or self._record_bytes > self._max_bytes:
            reason = size_error("the record", self._record_bytes, self._max_bytes)
            raise DataError(f"{self._path}, line {self._first_line}: {reason}; is one of its quotes never closed?")
        if self._line == 1 and line.startswith(UTF_16):
            raise DataError(f"{self._path} is UTF-16; save it as UTF-8")
        return line.decode("utf-8-sig" if self._line == 1 else "utf-8", "surrogateescape")
