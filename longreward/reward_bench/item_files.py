"""Read files of labelled items: bad and repeated rows are left out, each with its file, line and reason."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from longreward.data.file_source import find_files
from longreward.data.preferences import PairsConfig
from longreward.data.source import RejectedRecord, SourceLocation, describe_rejected
from longreward.errors import DataError
from longreward.reward_bench.items import Item
from longreward.reward_bench.public_formats import AUTO, detect_format, item_from_row
from longreward.utils.jsonl import RowError, error_reason


@dataclass
class ItemFiles:
    """The items of some files, and the rows that are none."""

    items: list[Item] = field(default_factory=list)
    rejected: list[RejectedRecord] = field(default_factory=list)
    formats: dict[str, str] = field(default_factory=dict)
    """The format of each file."""

    def describe_rejected(self) -> str:
        """Return how many rows are left out, with the first of them."""
        return describe_rejected(self.rejected, total=len(self.rejected) + len(self.items))


def read_item_files(
    names: Sequence[str], *, format_name: str = AUTO, columns: PairsConfig | None = None, root: Path = Path()
) -> ItemFiles:
    """Read files, folders and globs in the order given.

    Args:
        names: What `prepare.source` accepts, except the hub: jsonl, json, csv and parquet, also compressed.
        format_name: One of `FORMATS`; auto: by the columns of each file's first row.
        columns: The columns of pairs; if any is set, the files are read as pairs.
        root: The folder to which the names are relative.

    Raises:
        DataError: A file cannot be read, has no known format, or no row of all files is an item.
    """
    columns = columns or PairsConfig()
    if columns != PairsConfig():
        format_name = "pairs"
    files = ItemFiles()
    locations: dict[str, SourceLocation] = {}
    for name in names:
        for location, row in find_files(root, name).rows():
            try:
                if isinstance(row, RowError):
                    raise row
                if (file_format := files.formats.get(location.file)) is None:
                    file_format = detect_format(row) if format_name == AUTO else format_name
                    files.formats[location.file] = file_format
                stem = Path(location.file).name.partition(".")[0]
                item = item_from_row(row, file_format, stem=stem, columns=columns)
            except DataError as error:
                raise DataError(f"{location}: {error}") from None
            except (RowError, ValidationError) as error:
                files.rejected.append(RejectedRecord(location, None, error_reason(error)))
                continue
            if (first := locations.setdefault(item.id, location)) is location:
                files.items.append(item)
            else:
                reason = f"the same id as {first}, {item.id}"
                files.rejected.append(RejectedRecord(location, item.id, reason, "duplicate"))
    if not files.items:
        raise DataError(f"{', '.join(names)}: no labelled items. {files.describe_rejected()}")
    return files


def limit_items(items: Sequence[Item], limit: int) -> list[Item]:
    """Return `limit` items in their order: those whose documents have the smallest hashes.

    Files are often sorted by group, so that their first items would all be of one. Items of one document stay together.
    """
    ranked = sorted(range(len(items)), key=lambda index: hashlib.sha256(items[index].document.encode()).digest())
    return [items[index] for index in sorted(ranked[:limit])]
