"""Local files: jsonl and csv (a record at a time), json (whole), parquet (a few rows at a time), and shards of them.

    data/raw/x.jsonl   data/raw/x.jsonl.gz   data/raw/x.ndjson.zst   data/raw/x.csv   data/raw/x.parquet
    data/raw/x.json                                 a list of objects, or an object with one such list
    data/raw/shards    data/raw/shards/**/*.parquet

Shards are of one kind and come in the order of their names.
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
from longreward.data.source import COLUMN_SAMPLE_ROWS, MAX_RECORD_MIB, RAW, SourceLocation, refuse_constant, valid_row
from longreward.errors import DataError
from longreward.utils.jsonl import DECOMPRESSION_ERRORS, SUFFIXES, Row, RowError, open_binary, read_rows, size_error

TEXT_KINDS = (".jsonl", ".ndjson", ".json", ".csv")
KINDS = (*TEXT_KINDS, *(kind + suffix for kind in TEXT_KINDS for suffix in SUFFIXES), ".parquet")
READABLE = f"{', '.join(TEXT_KINDS)}, each also with {' or '.join(SUFFIXES)}, or .parquet"
LARGEST_JSON = 512 * 2**20  # bytes; a json file is read whole, and takes two to six times its size in memory
PARQUET_ROWS = 16  # at a time; a record of 128k tokens has about half a megabyte


@dataclass(frozen=True)
class FileSource:
    """One file or several of one kind, one after the other in the order of their names."""

    name: str
    base: Path
    """The folder to which the files' names are relative in a checksum."""
    files: tuple[Path, ...]
    root: Path
    """The project's folder; places name files relative to it."""
    max_record_mib: float = MAX_RECORD_MIB
    """A longer line (jsonl) or record (csv) is refused."""

    def rows(self) -> Iterator[tuple[SourceLocation, Row | RowError]]:
        """Each record with its line (jsonl) or row; DataError where a file is missing, empty or damaged."""
        for path in self.files:
            shown = os.path.relpath(path, self.root) if path.is_relative_to(self.root) else str(path)
            yield from _rows(path, shown, int(self.max_record_mib * 2**20))

    def columns(self) -> list[str]:
        """The schema's, or the fields of the first records."""
        if _kind(self.files[0]) == ".parquet":
            return [str(name) for name in _parquet(self.files[0]).schema_arrow.names]
        found = (row for _, row in islice(self.rows(), COLUMN_SAMPLE_ROWS) if isinstance(row, dict))
        return list(dict.fromkeys(name for row in found for name in row))


def find_files(root: Path, name: str, *, max_record_mib: float = MAX_RECORD_MIB) -> FileSource:
    """The file, the folder's files or the glob's; raises DataError where there is none or they are of several kinds."""
    root = Path(os.path.normpath(root.absolute()))
    path = Path(os.path.normpath(root / name))
    if path.is_dir():
        base, files = path, sorted(file for file in path.iterdir() if _kind(file) and file.is_file())
        hint = f"; for those in its subfolders: {name.rstrip('/')}/**/*.parquet"
    elif has_magic(name) and not path.exists():
        base = next(folder for folder in path.parents if not has_magic(str(folder)))
        files, hint = sorted(Path(file) for file in glob(str(path), recursive=True) if os.path.isfile(file)), ""
    elif not path.exists():
        raise DataError(f"{name} is not there (looked for {path}); is the name right, was the data fetched?")
    else:
        base, files, hint = path.parent, [path], ""
    kinds = {_kind(file): file.name for file in files}
    if not files:
        raise DataError(f"{name} holds no file that can be read ({READABLE}){hint}")
    if None in kinds:
        raise DataError(f"{name}: {kinds[None]} is none of {READABLE}")
    if len(kinds) > 1:
        raise DataError(
            f"{name} holds files of several kinds ({', '.join(sorted(kinds.values()))}); name one, or a glob"
        )
    return FileSource(name, base, tuple(files), root, max_record_mib)


def _kind(path: Path) -> str | None:
    return next((kind for kind in KINDS if path.name.lower().endswith(kind) and not path.name.startswith(".")), None)


def _rows(path: Path, shown: str, max_bytes: int) -> Iterator[tuple[SourceLocation, Row | RowError]]:
    kind = (_kind(path) or "").removesuffix(".gz").removesuffix(".zst")
    if kind in (".jsonl", ".ndjson"):
        lines = read_rows(path, max_line_bytes=max_bytes, parse_constant=refuse_constant)
    elif kind == ".csv":
        lines = read_csv(path, max_record_bytes=max_bytes)
    else:
        found = False
        for number, row in _parquet_rows(path) if kind == ".parquet" else enumerate(_json_rows(path)):
            found = True
            yield SourceLocation(shown, "row", number), valid_row(row)
        if not found:
            raise DataError(f"{path} is empty; expected one record or more")
        return
    for number, row in lines:
        yield SourceLocation(shown, "line", number), valid_row(row)
        del row  # not held while the next one is read


def _json_rows(path: Path) -> list[Any]:
    """The values of the file's list; a value that Python cannot read stands there as a RowError."""
    try:
        with open_binary(path) as file:
            too_large = path.stat().st_size > LARGEST_JSON  # before it is decompressed
            content = b"" if too_large else file.read(LARGEST_JSON + 1)
    except DECOMPRESSION_ERRORS as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if too_large or len(content) > LARGEST_JSON:
        name = path.name.removesuffix(".gz").removesuffix(".zst")
        raise DataError(
            f"{path} has more than {LARGEST_JSON / 2**20:,.0f} MB, and a .json file is read whole: make it one object "
            f"a line (`jq -c '.[]' {name} > {name}l`), which is read a line at a time"
        )
    try:
        text = content.decode("utf-8-sig", "surrogateescape")  # `valid_row` refuses the records with other bytes
        del content
        value = json.loads(text, parse_int=_whole_number, parse_constant=_no_number)
    except RecursionError:
        raise DataError(f"{path} holds JSON that is nested too deeply") from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); one object a line belongs into a file named .jsonl") from error
    if isinstance(value, list):
        return value
    lists = {key: inner for key, inner in value.items() if isinstance(inner, list)} if isinstance(value, dict) else {}
    if len(lists) != 1:
        raise DataError(
            f"{path} holds {f'an object with {len(lists)} lists' if isinstance(value, dict) else 'no list'} "
            f"({', '.join(lists) or 'expected one list of objects, or an object with one'}); leave one"
        )
    return next(iter(lists.values()))


def _whole_number(digits: str) -> int | RowError:
    try:
        return int(digits)
    except ValueError:
        return RowError(f"a whole number of {len(digits):,} digits; write it as text")


def _no_number(name: str) -> RowError:
    return RowError(f"{name} is not JSON; write null where there is no value")


def _parquet_rows(path: Path) -> Iterator[tuple[int, Row | RowError]]:
    from pyarrow import ArrowException

    number = 0
    file = _parquet(path)
    try:
        for batch in file.iter_batches(batch_size=PARQUET_ROWS):
            for row in _batch_rows(batch):
                yield number, row
                number += 1
    except (OSError, ArrowException) as error:
        raise DataError(
            f"{path}, row {number} or soon after it: cannot be read ({error}); is the file whole?"
        ) from error
    finally:
        file.close()


def _batch_rows(batch: Any) -> list[Row | RowError]:
    """The rows as Python values. Parquet does not check that its strings are UTF-8: one that is not is one bad row."""
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError:
        return [_single_row(batch.slice(index, 1)) for index in range(batch.num_rows)]


def _single_row(batch: Any) -> Row | RowError:
    try:
        row: Row = batch.to_pylist()[0]
    except UnicodeDecodeError as error:
        return RowError(f"not UTF-8 (byte 0x{error.object[error.start]:02x} at {error.start} of a text)")
    return row


def _parquet(path: Path) -> Any:
    from pyarrow import ArrowException, parquet

    try:
        # Without a buffer a whole row group is read at once. Writers may put a row group into one page, the least that
        # can be read: memory then goes with the row group's size (measured: 0.4 GB at 90 MB of text a row group).
        return parquet.ParquetFile(path, buffer_size=2**20, pre_buffer=False)
    except (OSError, ArrowException) as error:
        raise DataError(f"{path} cannot be read as parquet: {error}") from error


# Questions beside their texts: a row may name a text's file in place of holding the text.
#
# data/raw/questions.jsonl     {"idx": 0, "query": "Who signed?", "context_file": "documents/contract.txt"}
# data/raw/documents/contract.txt
# -->                          {"idx": 0, "query": "Who signed?", "context": "…", "document": "documents/contract.txt"}
#
# Texts stay as they are, and questions can be written in any editor.


FIELD = "context_file"


@dataclass(frozen=True)
class ContextFileSource:
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
                raise size_error(f"{FIELD} {name!r}", path.stat().st_size, max_bytes)
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
