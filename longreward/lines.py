"""The records of a jsonl file by the place of their line: found again one at a time, so that none need be held."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Generic, TypeVar

from longreward.compression import is_compressed, open_binary
from longreward.errors import DataError
from longreward.jsonl import Row, read_records

T = TypeVar("T")


class Lines(Generic[T]):
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
