"""Local files: jsonl (a line at a time), json (whole), parquet (a few rows at a time), and shards of them.

    data/raw/x.jsonl   data/raw/x.jsonl.gz   data/raw/x.parquet
    data/raw/x.json                                 a list of objects, or an object with one such list
    data/raw/shards    data/raw/shards/**/*.parquet

Shards are of one kind and come in the order of their names.
"""

import gzip
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from glob import glob, has_magic
from itertools import islice
from pathlib import Path
from typing import Any

from longreward.errors import DataError
from longreward.jsonl import Row, RowError, read_rows
from longreward.sources.place import LOOKED_AT, Place

KINDS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
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

    def rows(self) -> Iterator[tuple[Place, Row | RowError]]:
        """Each record with its line (jsonl) or row; DataError where a file is missing, empty or damaged."""
        for path in self.files:
            yield from _rows(path, os.path.relpath(path, self.root) if path.is_relative_to(self.root) else str(path))

    def columns(self) -> list[str]:
        """The schema's, or the fields of the first records."""
        if _kind(self.files[0]) == ".parquet":
            return [str(name) for name in _parquet(self.files[0]).schema_arrow.names]
        found = (row for _, row in islice(self.rows(), LOOKED_AT) if isinstance(row, dict))
        return list(dict.fromkeys(name for row in found for name in row))


def find_files(root: Path, name: str) -> FileSource:
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
        raise DataError(f"{name} holds no file that can be read ({', '.join(KINDS)}){hint}")
    if None in kinds:
        raise DataError(f"{name}: {kinds[None]} is no {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    if len(kinds) > 1:
        raise DataError(
            f"{name} holds files of several kinds ({', '.join(sorted(kinds.values()))}); name one, or a glob"
        )
    return FileSource(name, base, tuple(files), root)


def _kind(path: Path) -> str | None:
    return next((kind for kind in KINDS if path.name.lower().endswith(kind) and not path.name.startswith(".")), None)


def _rows(path: Path, shown: str) -> Iterator[tuple[Place, Row | RowError]]:
    kind = _kind(path)
    if kind == ".parquet":
        numbered = _parquet_rows(path)
    elif kind in (".json", ".json.gz"):
        numbered = enumerate(_json_rows(path))
    else:
        yield from ((Place(shown, "line", number), row) for number, row in read_rows(path))
        return
    found = False
    for number, row in numbered:
        found = True
        yield (
            Place(shown, "row", number),
            (row if isinstance(row, dict) else RowError(f"a JSON {type(row).__name__}, expected an object")),
        )
    if not found:
        raise DataError(f"{path} is empty; expected one record or more")


def _json_rows(path: Path) -> list[Any]:
    if path.stat().st_size > LARGEST_JSON:
        raise DataError(
            f"{path} has {path.stat().st_size / 2**20:,.0f} MB, and a .json file is read whole: make it one object a "
            f"line (`jq -c '.[]' {path.name} > {path.name.removesuffix('.gz')}l`), which is read a line at a time"
        )
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            value = json.loads(file.read().decode("utf-8-sig"))
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except (ValueError, RecursionError) as error:
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


def _parquet_rows(path: Path) -> Iterator[tuple[int, Row]]:
    from pyarrow import ArrowException

    number = 0
    file = _parquet(path)
    try:
        for batch in file.iter_batches(batch_size=PARQUET_ROWS):
            for row in batch.to_pylist():
                yield number, row
                number += 1
    except (OSError, UnicodeDecodeError, ArrowException) as error:
        raise DataError(
            f"{path}, row {number} or soon after it: cannot be read ({error}); is the file whole?"
        ) from error
    finally:
        file.close()


def _parquet(path: Path) -> Any:
    from pyarrow import ArrowException, parquet

    try:
        # Without a buffer a whole row group is read at once. Writers may put a row group into one page, the least that
        # can be read: memory then goes with the row group's size (measured: 0.4 GB at 90 MB of text a row group).
        return parquet.ParquetFile(path, buffer_size=2**20, pre_buffer=False)
    except (OSError, ArrowException) as error:
        raise DataError(f"{path} cannot be read as parquet: {error}") from error
