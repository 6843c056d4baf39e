"""JSON lines on disk: read a line at a time, each bad one with its number and reason; written whole or not at all."""

import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import ValidationError

from longreward.errors import DataError, StateError

Row = dict[str, Any]
T = TypeVar("T")


class RowError(ValueError):
    """One row cannot be used; the text says why."""


def read_rows(path: Path) -> Iterator[tuple[int, Row | RowError]]:
    """Yields (line number from 1, row); a line that is no JSON object comes as the reason why. Blank lines are skipped.

    Raises DataError where the file is missing, a folder, not readable or empty.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
            found = False
            for number, raw in enumerate(lines, start=1):
                if raw.strip():
                    found = True
                    yield number, _parse_line(raw, first=number == 1)
    except (OSError, EOFError, zlib.error) as error:  # the last two: a damaged .gz
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not found:
        raise DataError(f"{path} is empty; expected one JSON object a line")


def _parse_line(raw: bytes, *, first: bool) -> Row | RowError:
    try:
        row = json.loads(raw.decode("utf-8-sig" if first else "utf-8"))
    except UnicodeDecodeError as error:
        return RowError(f"not UTF-8 (byte 0x{raw[error.start]:02x} at column {error.start + 1})")
    except json.JSONDecodeError as error:
        return RowError(f"not JSON ({error.msg.removesuffix(' at')} at column {error.colno}); is the line cut off?")
    except RecursionError:
        return RowError("JSON that is nested too deeply")
    return row if isinstance(row, dict) else RowError(f"a JSON {type(row).__name__}, expected an object")


def read_records(path: Path, convert: Callable[[Row], T]) -> Iterator[T]:
    """The rows of a file as records; raises DataError at the first bad one, with its line and reason."""
    for number, row in read_rows(path):
        try:
            if isinstance(row, RowError):
                raise row
            record = convert(row)
        except (RowError, ValidationError) as error:
            raise DataError(f"{path}, line {number}: {reason_of(error)}") from None
        yield record


def reason_of(error: RowError | ValidationError) -> str:
    """One line on why a row was refused."""
    if isinstance(error, RowError):
        return str(error)
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))


@contextmanager
def writing(path: Path) -> Iterator[IO[str]]:
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
        with suppress(NotADirectoryError):  # the folder's place is taken by a file
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
    with writing(path) as file:
        for row in rows:
            file.write(to_line(row))
            count += 1
    return count


def to_line(row: Mapping[str, Any]) -> str:
    """One line of a jsonl file, its end included. A lone surrogate, which UTF-8 cannot hold, is escaped."""
    line = json.dumps(row, ensure_ascii=False) + "\n"
    return line if line.isascii() or _encodable(line) else json.dumps(row) + "\n"


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
