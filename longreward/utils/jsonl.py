"""Read and write JSON lines: bad lines are reported with number and reason, files are written atomically."""

import gzip
import io
import json
import os
import reprlib
import shutil
import tempfile
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from glob import escape
from pathlib import Path
from typing import IO, Any, Generic, TypeVar, cast, overload

from psutil import pid_exists
from pydantic import ValidationError

from longreward.errors import DataError, StateError

Row = dict[str, Any]
T = TypeVar("T")
R = TypeVar("R")

UTF_16 = (b"\xff\xfe", b"\xfe\xff")
MIB = 2**20
BLOCK_SIZE = MIB  # bytes or characters at a time, so that no second copy of a huge line is held
MAX_KEYS = 20
SUFFIXES = (".gz", ".zst")
# What reading a damaged file raises: gzip and zlib have errors of their own, pyarrow's zstd raises OSError.
DECOMPRESSION_ERRORS = (OSError, EOFError, zlib.error)

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 80


class RowError(ValueError):
    """One row cannot be used; the message is the reason."""


def read_rows(
    path: Path, *, max_line_bytes: int | None = None, parse_constant: Callable[[str], Any] | None = None
) -> Iterator[tuple[int, Row | RowError]]:
    """Yield (line number from 1, row); a line that is no JSON object yields its RowError. Blank lines are skipped.

    Args:
        max_line_bytes: A longer line yields a RowError too; it is never held as a whole.
        parse_constant: Returns the value for NaN, Infinity and -Infinity, which Python accepts and JSON does not
            define.

    Raises:
        DataError: The file is missing, a folder, unreadable, empty or UTF-16.
    """
    try:
        with open_binary(path) as file:
            is_empty, number = True, 0
            while line := read_line(file, max_line_bytes):
                number += 1
                if isinstance(line, RowError):
                    is_empty = False
                    yield number, line
                    continue
                if number == 1 and line.startswith(UTF_16):
                    raise DataError(f"{path} is UTF-16; save it as UTF-8, for example with `iconv -f utf-16 -t utf-8`")
                if not line.strip():
                    continue
                is_empty = False
                row = _parse_line(line, is_first=number == 1, parse_constant=parse_constant)
                del line  # a long line is not held a second time while its row is used
                yield number, row
                del row
    except DECOMPRESSION_ERRORS as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if is_empty:
        raise DataError(f"{path} is empty; expected one JSON object a line")


def read_line(file: IO[bytes], max_bytes: int | None) -> bytes | RowError:
    """Read the next line with its line break; empty at the end of the file. A line above `max_bytes` is skipped."""
    if max_bytes is None:
        return file.readline()
    line = file.readline(max_bytes + 1)
    if len(line) <= max_bytes or line.endswith(b"\n"):
        return line
    size = len(line)
    del line
    while block := file.readline(BLOCK_SIZE):
        size += len(block)
        if block.endswith(b"\n"):
            break
    return size_error("the line", size, max_bytes)


def read_records(path: Path, convert: Callable[[Row], T]) -> Iterator[T]:
    """Yield the rows of a file as records; raises DataError at the first bad one, with its line and reason."""
    for number, row in read_rows(path):
        try:
            if isinstance(row, RowError):
                raise row
            record = convert(row)
        except (RowError, ValidationError) as error:
            raise DataError(f"{path}, line {number}: {error_reason(error)}") from None
        yield record


def _parse_line(raw: bytes, *, is_first: bool, parse_constant: Callable[[str], Any] | None) -> Row | RowError:
    try:
        row = json.loads(raw.decode("utf-8-sig" if is_first else "utf-8"), parse_constant=parse_constant)
    except UnicodeDecodeError as error:
        return RowError(f"not UTF-8 (byte 0x{raw[error.start]:02x} at column {error.start + 1})")
    except json.JSONDecodeError as error:
        return RowError(f"not JSON ({error.msg.removesuffix(' at')} at column {error.colno}); is the line cut off?")
    except RecursionError:
        return RowError("JSON that is nested too deeply")
    except ValueError:  # Python converts no more digits (sys.get_int_max_str_digits)
        return RowError("a whole number of more than 4,300 digits; write it as text")
    return row if isinstance(row, dict) else RowError(f"a JSON {type(row).__name__}, expected an object")


def size_error(subject: str, size: int, limit: int) -> RowError:
    """Make the error for a record of `size` bytes; the limit is a setting of `prepare`."""
    return RowError(f"{subject} has {size / MIB:,.1f} MiB, more than prepare.max_record_mib ({limit / MIB:g})")


def missing_key(key: str, row: Mapping[str, Any]) -> RowError:
    """Make the error for a row that lacks a key; it names the keys of the row."""
    keys = ", ".join(map(shorten, list(row)[:MAX_KEYS])) or "no keys"
    suffix = f" and {len(row) - MAX_KEYS} more" if len(row) > MAX_KEYS else ""
    return RowError(f"{key} is missing; the row has {keys}{suffix}")


def error_reason(error: RowError | ValidationError) -> str:
    """Return one line on why a row was rejected."""
    if isinstance(error, RowError):
        return str(error)
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))


def shorten(value: object) -> str:
    """Return the repr of a value, cut to about 80 characters for messages."""
    return _repr.repr(value)


@contextmanager
def open_atomic(path: Path) -> Iterator[IO[str]]:
    """Open a text file for writing that appears at `path` complete or not at all.

    Partial files of killed processes are removed, and only a regular file is ever replaced. Raises StateError where the
    disk refuses.
    """
    if path.exists() and not path.is_file():
        raise StateError(f"{path} cannot be written: it exists and is no regular file; choose another path")
    # In the same folder, as a rename is atomic only within one file system.
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for abandoned in path.parent.glob(f".{escape(path.name)}.*.part"):
            process = abandoned.name.removesuffix(".part").rpartition(".")[2]
            if process.isdecimal() and not pid_exists(int(process)):
                abandoned.unlink(missing_ok=True)
        with part.open("w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise StateError(
            f"{path} cannot be written: {error.strerror or error}; make room or choose another path"
        ) from error
    finally:
        # Raises although there is no part: on a read-only file system, or if the parent folder is a file.
        with suppress(OSError):
            part.unlink(missing_ok=True)


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write one JSON object a line; returns the number of rows."""
    count = 0
    with open_atomic(path) as file:
        for row in rows:
            file.write(to_line(row))
            count += 1
    return count


def to_line(row: Mapping[str, Any]) -> str:
    """Serialize one row with its line break. Rows with a lone surrogate, which UTF-8 cannot encode, become ASCII."""
    line = json.dumps(row, ensure_ascii=False) + "\n"
    return line if find_surrogate(line) is None else json.dumps(row) + "\n"


def find_surrogate(text: str) -> int | None:
    """Return the index of the first lone surrogate, which UTF-8 cannot encode; None: there is none."""
    if text.isascii():
        return None
    for start in range(0, len(text), BLOCK_SIZE):
        try:
            text[start : start + BLOCK_SIZE].encode("utf-8")
        except UnicodeEncodeError as error:
            return start + error.start
    return None


class IndexedJsonl(Generic[T]):
    """Random access to the records of a file by byte offset, so that they need not be in memory.

    A compressed file is decompressed once, to a temporary file.
    """

    def __init__(self, path: Path, convert: Callable[[Row], T]) -> None:
        self._path = path
        self._convert = convert
        self._file: IO[bytes] | None = None

    def scan(self) -> Iterator[tuple[int, T]]:
        """Yield each record with its offset, in order; raises DataError at the first bad one, with its line."""
        return self.scan_as(self._convert)

    def scan_as(self, convert: Callable[[Row], R]) -> Iterator[tuple[int, R]]:
        """Yield what `convert` returns of each row with its offset, as `scan`."""
        records = read_records(self._path, convert)
        first = next(records)  # raises for a missing or empty file before it is opened for the offsets
        offsets = self._offsets()
        yield next(offsets), first
        yield from zip(offsets, records, strict=True)

    def __getitem__(self, offset: int) -> T:
        """Return the record at an offset that `scan` yielded; raises DataError if it is bad, or has changed since."""
        if self._file is None:
            self._file = self._open_seekable()
        self._file.seek(offset)
        try:
            line = self._file.readline().decode("utf-8" if offset else "utf-8-sig")
            return self._convert(json.loads(line))
        except (RowError, ValidationError) as error:  # rows that `scan` converted in another way
            number = 1
            self._file.seek(0)
            while self._file.tell() < offset:
                self._file.readline()
                number += 1
            raise DataError(f"{self._path}, line {number}: {error_reason(error)}") from None
        except ValueError as error:
            raise DataError(f"{self._path} was changed while it was read; start again") from error

    def _offsets(self) -> Iterator[int]:
        offset = 0
        with self._open_seekable() as file:
            for line in file:
                if line.strip():
                    yield offset
                offset += len(line)

    def _open_seekable(self) -> IO[bytes]:
        if not is_compressed(self._path):
            return open_binary(self._path)
        decompressed = tempfile.TemporaryFile()  # noqa: SIM115 - stays open for __getitem__
        with open_binary(self._path) as compressed:
            shutil.copyfileobj(compressed, decompressed)
        decompressed.seek(0)
        return decompressed


class RecordsOnDisk(Sequence[T]):
    """The records of a file, read on access; only line offsets are in memory."""

    def __init__(self, path: Path, convert: Callable[[Row], T]) -> None:
        """Check all records; raises DataError at the first bad one, with its line."""
        self._file = IndexedJsonl(path, convert)
        self._offsets = array("q", (offset for offset, _ in self._file.scan()))

    def __len__(self) -> int:
        return len(self._offsets)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> "RecordsOnDisk[T]": ...
    def __getitem__(self, index: int | slice) -> "T | RecordsOnDisk[T]":
        if isinstance(index, int):
            return self._file[self._offsets[index]]
        part = copy(self)
        part._offsets = self._offsets[index]
        return part


def is_compressed(path: Path) -> bool:
    """Whether `open_binary` decompresses the file, by its suffix."""
    return path.suffix.lower() in SUFFIXES


def open_binary(path: Path) -> IO[bytes]:
    """Open a file for reading bytes; .gz and .zst files are decompressed while they are read.

    Raises OSError where it cannot be opened. Reading a damaged file raises one of DECOMPRESSION_ERRORS.
    """
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return cast(IO[bytes], gzip.open(path))
    if suffix == ".zst":
        # pyarrow has the codec; Python's own (compression.zstd) comes with 3.14.
        import pyarrow

        stream = pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")
        return cast(IO[bytes], io.BufferedReader(stream))
    return path.open("rb")
