"""Where the fetched files lie, and what is missing there."""

from collections.abc import Mapping
from pathlib import Path

from longreward.benchmarks.files.lock import Lock
from longreward.benchmarks.files.table import TABLE, Source, read_table
from longreward.errors import DataError

FOLDER = Path("data/benchmarks")


def locate(benchmark: str, folder: Path = FOLDER, table: Path = TABLE) -> Mapping[str, Path]:
    """The benchmark's files that are there, by their names in the table (an archive's members by their places).

    Contents are checked when they are fetched, not here. Raises DataError where a needed one is missing, with its
    place, its checksum and the command; ConfigError for a benchmark that is not in the table.
    """
    found: dict[str, Path] = {}
    missing: list[str] = []
    lock = Lock(folder)
    for source in read_table([benchmark], table):
        places = {name: folder / benchmark / name for name in source.files}
        absent = [path for path in places.values() if not path.is_file()]
        if not absent:
            found |= places
        elif source.needed:
            missing += [wanted(source, path, lock) for path in absent]
    if missing:
        listed = "\n".join(f"  {line}" for line in missing)
        raise DataError(
            f"{benchmark} lacks {len(missing)} file(s):\n{listed}\n"
            f"Fetch them:  longreward benchmarks fetch --only {benchmark} --folder {folder}\n"
            "Without a network, copy them to these places, or name a folder that holds them with --from"
        )
    return found


def wanted(source: Source, path: Path, lock: Lock) -> str:
    """Which file goes where: its place, its checksum where one is known, and its address."""
    expected = source.sha256 or lock.checksum(source.key)
    if source.members:
        checked = f"unpacked from {source.name}, {f'sha256 {expected}' if expected else 'whose checksum is not known'}"
    else:
        checked = f"sha256 {expected}" if expected else "its checksum is not known yet"
    where = f"from {source.addresses[0]}" if source.addresses else f"no address is known; {source.what}"
    return f"{path} ({checked}; {where})"
