"""Request lines that are in no batch yet: on the disk, since a round may hold gigabytes of them."""

import tempfile
from pathlib import Path

from longreward.judge.batch.record import disk_faults


class Spool:
    """Lines on the disk, read back by their place; gone with the process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with disk_faults(folder):
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._end = 0

    def put(self, line: bytes) -> tuple[int, int]:
        """The line's place."""
        with disk_faults(self._folder):
            self._file.seek(self._end)
            self._file.write(line)
        place = (self._end, len(line))
        self._end += len(line)
        return place

    def get(self, place: tuple[int, int]) -> bytes:
        """The line at this place."""
        self._file.seek(place[0])
        return self._file.read(place[1])

    def clear(self) -> None:
        """Forgets all lines."""
        self._end = 0
        self._file.truncate(0)

    def close(self) -> None:
        self._file.close()
