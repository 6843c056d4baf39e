"""Points of DVC's plots, as CSV files."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from longreward.utils.jsonl import open_atomic


def write_points(path: Path, points: Iterable[Mapping[str, str | float]], columns: Sequence[str]) -> None:
    """One row a point; the header alone where there are none, since DVC misses a file that is not there."""
    with open_atomic(path) as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(points)
