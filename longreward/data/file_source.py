"""Local files: jsonl and csv (one record at a time), json (as a whole), parquet (a few rows at a time), and shards.

    data/raw/x.jsonl   data/raw/x.jsonl.gz   data/raw/x.ndjson.zst   data/raw/x.csv   data/raw/x.parquet
    data/raw/x.json                                 a list of objects, or an object with one such list
    data/raw/shards    data/raw/shards/**/*.parquet

Shards have one format and are read in the order of their names. A row may name a text file instead of containing the
text, so that questions and documents can be edited separately:

    data/raw/questions.jsonl   {"idx": 0, "query": "Who signed?", "context_file": "documents/contract.txt"}
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from glob import glob, has_magic
from itertools import islice
from pathlib import Path
from typing import Any

from longreward.data.csv_reader import read_csv
from longreward.data.source import (
    COLUMN_SAMPLE_ROWS,
    MAX_RECORD_MIB,
    RAW,
    SourceLocation,
    constant_error,
    text_error,
    valid_row,
)
from longreward.errors import DataError
from longreward.utils.jsonl import DECOMPRESSION_ERRORS, SUFFIXES, Row, RowError, open_binary, read_rows, size_error

TEXT_FORMATS = (".jsonl", ".ndjson", ".json", ".csv")
FORMATS = (*TEXT_FORMATS, *(suffix + compression for suffix in TEXT_FORMATS for compression in SUFFIXES), ".parquet")
SUPPORTED = f"{', '.join(TEXT_FORMATS)}, each also with {' or '.join(SUFFIXES)}, or .parquet"
MAX_JSON_BYTES = 512 * 2**20  # a json file is read as a whole and takes two to six times its size in memory
PARQUET_BATCH_ROWS = 16  # a record of 128k tokens has about half a megabyte
CONTEXT_FILE = "context_file"


@dataclass(frozen=True)
class FileSource:
    """The records of one or more files of the same format, in the order of their names."""

    name: str
    base: Path
    """The folder to which the files' names are relative in a checksum."""
    files: tuple[Path, ...]
    root: Path
    """The project's folder, to which locations are relative."""
    max_record_mib: float = MAX_RECORD_MIB
    """A larger line (jsonl) or record (csv) is rejected."""

    def rows(self) -> Iterator[tuple[SourceLocation, Row | RowError]]:
        """Yield each record with its line or row, and with the text of its `context_file`.

        Raises DataError if a file is missing, empty or damaged.
        """
        cached: tuple[Path, str] | None = None  # the last text, because questions on one text are usually adjacent
        for location, row in self._raw_rows():
            if isinstance(row, RowError) or row.get(CONTEXT_FILE) is None or row.get("context") is not None:
                yield location, row
                continue
            try:
                path = self._resolve(location, row[CONTEXT_FILE])
                if cached is None or cached[0] != path:
                    cached = path, self._read_text(path, row[CONTEXT_FILE])
            except RowError as error:
                yield location, error
                continue
            document = row.get("document") or path.relative_to(self.root / RAW).as_posix()
            yield location, {**row, "context": cached[1], "document": document}

    def columns(self) -> list[str]:
        """Return the columns of the schema, or of the first records, and those that text files add."""
        if _format(self.files[0]) == ".parquet":
            columns = [str(name) for name in _open_parquet(self.files[0]).schema_arrow.names]
        else:
            rows = (row for _, row in islice(self._raw_rows(), COLUMN_SAMPLE_ROWS) if isinstance(row, dict))
            columns = list(dict.fromkeys(name for row in rows for name in row))
        return list(dict.fromkeys([*columns, "context", "document"])) if CONTEXT_FILE in columns else columns

    def _raw_rows(self) -> Iterator[tuple[SourceLocation, Row | RowError]]:
        for path in self.files:
            display_name = os.path.relpath(path, self.root) if path.is_relative_to(self.root) else str(path)
            yield from _read_file(path, display_name, int(self.max_record_mib * 2**20))

    def _resolve(self, location: SourceLocation, name: object) -> Path:
        """Return the path of a text file, relative to the file that names it.

        Only files below data/raw are allowed: DVC tracks them there, and no checksum covers them elsewhere.
        """
        if not isinstance(name, str) or not name.strip():
            raise RowError(f"{CONTEXT_FILE} is {name!r}, expected the name of a text file")
        path = Path(os.path.normpath((self.root / location.file).parent / name))
        if not path.is_relative_to(self.root / RAW):
            raise RowError(f"{CONTEXT_FILE} {name!r} is {path}, outside {RAW}, where nothing is versioned; move it")
        return path

    def _read_text(self, path: Path, name: str) -> str:
        max_bytes = int(self.max_record_mib * 2**20)
        try:
            with path.open("rb") as file:
                content = file.read(max_bytes + 1)
                if len(content) > max_bytes:
                    raise size_error(f"{CONTEXT_FILE} {name!r}", path.stat().st_size, max_bytes)
        except OSError as error:
            raise RowError(f"{CONTEXT_FILE} {name!r} cannot be read: {error.strerror or error} ({path})") from None
        text = content.decode("utf-8-sig", "surrogateescape")
        if (reason := text_error(text)) is not None:
            raise RowError(f"{CONTEXT_FILE} {name!r} {reason}")
        return text.replace("\r\n", "\n").replace("\r", "\n")  # universal newlines


def find_files(root: Path, name: str, *, max_record_mib: float = MAX_RECORD_MIB) -> FileSource:
    """Return the file, the files of a folder, or the matches of a glob.

    Raises DataError if there is none or if they have several formats.
    """
    # normpath instead of resolve(): DVC may replace a file by a link into its cache, and the name is what counts.
    root = Path(os.path.normpath(root.absolute()))
    path = Path(os.path.normpath(root / name))
    hint = ""
    if path.is_dir():
        base, files = path, sorted(file for file in path.iterdir() if _format(file) and file.is_file())
        hint = f"; for those in its subfolders: {name.rstrip('/')}/**/*.parquet"
    elif has_magic(name) and not path.exists():  # a file may be called x[1].jsonl
        base = next(folder for folder in path.parents if not has_magic(str(folder)))
        files = sorted(Path(file) for file in glob(str(path), recursive=True) if os.path.isfile(file))
    elif path.exists():
        base, files = path.parent, [path]
    else:
        raise DataError(f"{name} does not exist (searched for {path}); is the name right, was the data downloaded?")
    formats = {_format(file): file.name for file in files}
    if not files:
        raise DataError(f"{name} contains no file that can be read ({SUPPORTED}){hint}")
    if None in formats:
        raise DataError(f"{name}: {formats[None]} is none of {SUPPORTED}")
    if len(formats) > 1:
        raise DataError(
            f"{name} contains files of several formats ({', '.join(sorted(formats.values()))}); name one, or a glob"
        )
    return FileSource(name, base, tuple(files), root, max_record_mib)


# --- formats ----------------------------------------------------------------------------------------------------------


def _format(path: Path) -> str | None:
    name = path.name.lower()
    return next((suffix for suffix in FORMATS if name.endswith(suffix) and not name.startswith(".")), None)


def _read_file(path: Path, display_name: str, max_bytes: int) -> Iterator[tuple[SourceLocation, Row | RowError]]:
    kind = (_format(path) or "").removesuffix(".gz").removesuffix(".zst")
    if kind in (".json", ".parquet"):
        number = -1
        for number, row in enumerate(_read_parquet(path) if kind == ".parquet" else _read_json(path)):
            yield SourceLocation(display_name, "row", number), valid_row(row)
        if number < 0:
            raise DataError(f"{path} is empty; expected at least one record")
        return
    if kind == ".csv":
        lines = read_csv(path, max_record_bytes=max_bytes)
    else:
        lines = read_rows(path, max_line_bytes=max_bytes, parse_constant=constant_error)
    for number, row in lines:
        yield SourceLocation(display_name, "line", number), valid_row(row)
        del row  # a long record is not kept while the next one is read


def _read_json(path: Path) -> list[Any]:
    """Return the items of the file's list; a value that Python cannot read is a RowError."""
    try:
        with open_binary(path) as file:
            too_large = path.stat().st_size > MAX_JSON_BYTES  # checked before decompression
            content = b"" if too_large else file.read(MAX_JSON_BYTES + 1)
    except DECOMPRESSION_ERRORS as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if too_large or len(content) > MAX_JSON_BYTES:
        name = path.name.removesuffix(".gz").removesuffix(".zst")
        raise DataError(
            f"{path} has more than {MAX_JSON_BYTES / 2**20:,.0f} MB, and a .json file is read as a whole: convert it "
            f"to one object per line (`jq -c '.[]' {name} > {name}l`), which is read line by line"
        )
    try:
        text = content.decode("utf-8-sig", "surrogateescape")  # `valid_row` rejects records with invalid bytes
        del content
        value = json.loads(text, parse_int=_parse_int, parse_constant=constant_error)
    except RecursionError:
        raise DataError(f"{path} contains JSON that is nested too deeply") from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); name a file with one object per line .jsonl") from error
    if isinstance(value, list):
        return value
    lists = {key: items for key, items in value.items() if isinstance(items, list)} if isinstance(value, dict) else {}
    if len(lists) != 1:
        raise DataError(
            f"{path} contains {f'an object with {len(lists)} lists' if isinstance(value, dict) else 'no list'} "
            f"({', '.join(lists) or 'expected one list of objects, or an object with one'}); keep one"
        )
    return next(iter(lists.values()))


def _parse_int(digits: str) -> int | RowError:
    try:
        return int(digits)
    except ValueError:  # Python converts at most 4,300 digits
        return RowError(f"a whole number of {len(digits):,} digits; write it as text")


def _read_parquet(path: Path) -> Iterator[Row | RowError]:
    from pyarrow import ArrowException

    count = 0
    file = _open_parquet(path)
    try:
        for batch in file.iter_batches(batch_size=PARQUET_BATCH_ROWS):
            rows = _to_rows(batch)
            yield from rows
            count += len(rows)
    except (OSError, ArrowException) as error:
        raise DataError(
            f"{path}, row {count} or soon after it: cannot be read ({error}); is the file complete?"
        ) from error
    finally:
        file.close()


def _to_rows(batch: Any) -> list[Row | RowError]:
    # Parquet does not check that strings are UTF-8. If one is not, the rows are converted one by one, so that a single
    # record is rejected.
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError as error:
        if batch.num_rows > 1:
            return [row for index in range(batch.num_rows) for row in _to_rows(batch.slice(index, 1))]
        return [RowError(f"not UTF-8 (byte 0x{error.object[error.start]:02x} at {error.start} of a text)")]


def _open_parquet(path: Path) -> Any:
    from pyarrow import ArrowException, parquet

    try:
        # Without a buffer a whole row group is read at once. Some writers put a row group into a single page, the
        # smallest unit that can be read; memory then grows with its size (0.4 GB measured at 90 MB of text).
        return parquet.ParquetFile(path, buffer_size=2**20, pre_buffer=False)
    except (OSError, ArrowException) as error:
        raise DataError(f"{path} cannot be read as parquet: {error}") from error
