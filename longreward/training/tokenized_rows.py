"""Tokenised rows on the disk: written once, one after another, and read in place.

    <folder>/rows.arrow      lists of token ids as int32
    <folder>/complete.json   written last, what was found of their lengths; without it the rows are half-written

They lie in the state of their training and go with it: nothing of a user's documents reaches a cache folder. As lists
of Python's numbers, ten thousand pairs of 64k tokens would take more than 20 GB of memory.
"""

import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from longreward.errors import StateError

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

Row = Mapping[str, Any]
"""Lists of token ids, counts, and an id."""

HELD_TOKENS = 1 << 18  # of rows that wait in memory to be written together


def opened(folder: Path) -> "tuple[datasets.Dataset, dict[str, Any]] | None":
    """The rows that were written to their end, and what was noted with them; None where there are none."""
    try:
        noted = json.loads((folder / "complete.json").read_text(encoding="utf-8"))
        whole = (folder / "rows.arrow").stat().st_size == noted.pop("bytes")
    except (OSError, ValueError, KeyError):
        return None
    if not whole:
        return None
    import datasets

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    return datasets.Dataset.from_file(str(folder / "rows.arrow")), noted


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """While another process of this training writes the rows, waits. Where it fails, no folder is left behind."""
    made = [parent for parent in (folder.parent, folder.parent.parent) if not parent.exists()]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            yield
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # the folder could not even be made, or somebody else's file lies in it
            folder.with_suffix(".lock").unlink()
            for parent in made:
                parent.rmdir()
        if isinstance(error, OSError):
            raise StateError(f"{folder}: rows cannot be written ({error}); free or grant the space") from error
        raise


def write(folder: Path, rows: Iterable[Row]) -> None:
    """Writes rows as they come; `complete` makes them count."""
    import pyarrow as pa

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    writer: Any = None
    try:
        for batch in _batches(rows):
            writer = writer or pa.ipc.new_stream(folder / "rows.arrow", batch.schema)
            writer.write_batch(batch)
    finally:
        if writer is not None:
            writer.close()


def complete(folder: Path, noted: Mapping[str, Any]) -> None:
    """Marks the rows as whole."""
    note = {**noted, "bytes": (folder / "rows.arrow").stat().st_size}
    part = folder / "complete.part"
    part.write_text(json.dumps(note), encoding="utf-8")
    part.replace(folder / "complete.json")


def _batches(rows: Iterable[Row]) -> "Iterator[pa.RecordBatch]":
    import numpy as np

    held: list[dict[str, Any]] = []
    tokens = 0
    for row in rows:
        held.append({k: np.asarray(v, dtype=np.int32) if isinstance(v, list) else v for k, v in row.items()})
        tokens += sum(len(value) for value in row.values() if isinstance(value, list))
        if tokens >= HELD_TOKENS:
            yield _batch(held)
            held, tokens = [], 0
    if held:
        yield _batch(held)


def _batch(rows: list[dict[str, Any]]) -> "pa.RecordBatch":
    import numpy as np
    import pyarrow as pa

    def kind(value: Any) -> "pa.DataType":
        return pa.list_(pa.int32()) if isinstance(value, np.ndarray) else pa.int32() if isinstance(value, int) else None

    columns = {name: pa.array([row[name] for row in rows], type=kind(value)) for name, value in rows[0].items()}
    return pa.RecordBatch.from_pydict(columns)
