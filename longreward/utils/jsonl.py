"""JSON lines on disk: read a line at a time, each bad one with its number and reason; written whole or not at all."""

import gzip
import io
import json
import os
import reprlib
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import IO, Any, Generic, TypeVar, cast

from pydantic import ValidationError

from longreward.errors import DataError, StateError

Row = dict[str, Any]
T = TypeVar("T")
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
SKIPPED_BYTES = 2**20  # of a line that is too long, at a time
SHOWN_KEYS = 20


class RowError(ValueError):
    """One row cannot be used; the text says why."""


def read_rows(
    path: Path, *, max_line_bytes: int | None = None, parse_constant: Callable[[str], Any] | None = None
) -> Iterator[tuple[int, Row | RowError]]:
    """Yields (line number from 1, row); a line that is no JSON object comes as the reason why. Blank lines are skipped.

    A line of more than `max_line_bytes` is such a reason too; it is never held as a whole. `parse_constant` is called
    with NaN, Infinity and -Infinity and may raise RowError; Python reads them as floats, which JSON does not know.
    Raises DataError where the file is missing, a folder, not readable, empty or UTF-16.
    """
    try:
        with open_binary(path) as file:
            found, number = False, 0
            while line := read_line(file, max_line_bytes):
                number += 1
                if isinstance(line, RowError):
                    found = True
                    yield number, line
                    continue
                if number == 1 and line.startswith(UTF_16):
                    raise DataError(f"{path} is UTF-16; save it as UTF-8, for example with `iconv -f utf-16 -t utf-8`")
                if not line.strip():
                    continue
                found = True
                row = _parse_line(line, first=number == 1, parse_constant=parse_constant)
                del line  # a long line is not held a second time while its row is used
                yield number, row
                del row
    except DECOMPRESSION_ERRORS as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not found:
        raise DataError(f"{path} is empty; expected one JSON object a line")


def read_line(file: IO[bytes], max_bytes: int | None) -> bytes | RowError:
    """The next line with its end, empty at the end of the file; one of more than `max_bytes` is skipped in pieces."""
    if max_bytes is None:
        return file.readline()
    line = file.readline(max_bytes + 1)
    if len(line) <= max_bytes or line.endswith(b"\n"):
        return line
    size = len(line)
    del line
    while rest := file.readline(SKIPPED_BYTES):
        size += len(rest)
        if rest.endswith(b"\n"):
            break
    return size_error("the line", size, max_bytes)


def size_error(what: str, size: int, limit: int) -> RowError:
    """The reason why a record of `size` bytes is not read; the limit is a setting of `prepare`."""
    mib = 2**20
    return RowError(f"{what} has {size / mib:,.1f} MiB, more than prepare.max_record_mib ({limit / mib:g})")


def _parse_line(raw: bytes, *, first: bool, parse_constant: Callable[[str], Any] | None) -> Row | RowError:
    try:
        row = json.loads(raw.decode("utf-8-sig" if first else "utf-8"), parse_constant=parse_constant)
    except UnicodeDecodeError as error:
        return RowError(f"not UTF-8 (byte 0x{raw[error.start]:02x} at column {error.start + 1})")
    except json.JSONDecodeError as error:
        return RowError(f"not JSON ({error.msg.removesuffix(' at')} at column {error.colno}); is the line cut off?")
    except RecursionError:
        return RowError("JSON that is nested too deeply")
    except RowError as error:
        return error
    except ValueError:  # Python converts no more digits (sys.get_int_max_str_digits)
        return RowError("a whole number of more than 4,300 digits; write it as text")
    return row if isinstance(row, dict) else RowError(f"a JSON {type(row).__name__}, expected an object")


def read_records(path: Path, convert: Callable[[Row], T]) -> Iterator[T]:
    """The rows of a file as records; raises DataError at the first bad one, with its line and reason."""
    for number, row in read_rows(path):
        try:
            if isinstance(row, RowError):
                raise row
            record = convert(row)
        except (RowError, ValidationError) as error:
            raise DataError(f"{path}, line {number}: {error_reason(error)}") from None
        yield record


def error_reason(error: RowError | ValidationError) -> str:
    """One line on why a row was refused."""
    if isinstance(error, RowError):
        return str(error)
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))


def shorten(value: object) -> str:
    """A value in a message: no longer than about a line, whatever is in it."""
    return _SHORT.repr(value)


def missing_key(key: str, row: Mapping[str, Any]) -> RowError:
    """The reason for a row that lacks a key; names those that it has."""
    more = f" and {len(row) - SHOWN_KEYS} more" if len(row) > SHOWN_KEYS else ""
    return RowError(
        f"{key} is missing; the row has {', '.join(map(shorten, list(row)[:SHOWN_KEYS])) or 'no keys'}{more}"
    )


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


@contextmanager
def open_atomic(path: Path) -> Iterator[IO[str]]:
    """A text file that appears at `path` whole or not at all; raises StateError where the disk refuses.

    What a killed process had begun is removed; only a regular file is ever replaced.
    """
    if path.exists() and not path.is_file():
        raise StateError(f"{path} cannot be written: it is there and no regular file; choose another place")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        with part.open("w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise StateError(
            f"{path} cannot be written: {error.strerror or error}; make room or choose another place"
        ) from error
    finally:
        # Also raised where there is no part: on a read-only file system, or where a file is in the folder's place.
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _remove_abandoned(path: Path) -> None:
    """Removes the parts of processes that are no more."""
    for part in path.parent.glob(f".{escape(path.name)}.*.part"):
        owner = part.name.removesuffix(".part").rpartition(".")[2]
        if owner.isdecimal() and not _lives(int(owner)):
            part.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Writes one JSON object a line; returns how many."""
    count = 0
    with open_atomic(path) as file:
        for row in rows:
            file.write(to_line(row))
            count += 1
    return count


def to_line(row: Mapping[str, Any]) -> str:
    """One line of a jsonl file, its end included. A lone surrogate, which UTF-8 cannot hold, is escaped."""
    line = json.dumps(row, ensure_ascii=False) + "\n"
    return line if find_surrogate(line) is None else json.dumps(row) + "\n"


def find_surrogate(text: str) -> int | None:
    """The index of the first lone surrogate, which UTF-8 cannot hold; looks at a long text in pieces."""
    if text.isascii():
        return None
    for start in range(0, len(text), SEARCHED):
        try:
            text[start : start + SEARCHED].encode("utf-8")
        except UnicodeEncodeError as error:
            return start + error.start
    return None


SEARCHED = 2**20  # characters at a time: a copy of the whole text is not made


# The records of a jsonl file by the place of their line: found again one at a time, so that none need be held.


class IndexedJsonl(Generic[T]):
    """A file whose records can be read again by their places. A compressed one is unpacked once."""

    def __init__(self, path: Path, convert: Callable[[Row], T]) -> None:
        self._path = path
        self._convert = convert
        self._file: IO[bytes] | None = None

    def scan(self) -> Iterator[tuple[int, T]]:
        """Each record with its place, in order; raises DataError at the first that cannot be used, with its line."""
        records = read_records(self._path, self._convert)
        first = next(records)  # tells of a missing or empty file before it is opened for places
        places = self._places()
        yield next(places), first
        yield from zip(places, records, strict=True)

    def at(self, place: int) -> T:
        """The record at the place that `scan` gave; raises DataError where the file has changed since."""
        file = self._opened()
        file.seek(place)
        try:
            return self._convert(json.loads(file.readline().decode("utf-8" if place else "utf-8-sig")))
        except ValueError as error:
            raise DataError(f"{self._path} was changed while it was read; start again") from error

    def _places(self) -> Iterator[int]:
        place = 0
        with self._copy() as file:
            for raw in file:
                if raw.strip():
                    yield place
                place += len(raw)

    def _opened(self) -> IO[bytes]:
        if self._file is None:
            self._file = self._copy()
        return self._file

    def _copy(self) -> IO[bytes]:
        if not is_compressed(self._path):
            return open_binary(self._path)
        unpacked = tempfile.TemporaryFile()  # noqa: SIM115 - kept open for `at`, and gone with it
        with open_binary(self._path) as packed:
            shutil.copyfileobj(packed, unpacked)
        unpacked.seek(0)
        return unpacked


# Files that may be compressed: the name's ending decides.


SUFFIXES = (".gz", ".zst")
DECOMPRESSION_ERRORS = (OSError, EOFError, zlib.error)
"""What reading a damaged file raises: gzip and zlib have errors of their own, pyarrow's zstd raises OSError."""


def is_compressed(path: Path) -> bool:
    """Whether `open_binary` decompresses the file."""
    return path.suffix.lower() in SUFFIXES


def open_binary(path: Path) -> IO[bytes]:
    """Open a file for reading bytes; .gz and .zst files are decompressed as they are read.

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
