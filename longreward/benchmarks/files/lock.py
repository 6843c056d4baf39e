"""`files.lock.json` beside the files: what each was when it was first fetched. A file is held to that ever after.

{"longbench/data.zip": {"sha256": "9f2c…", "bytes": 113932529, "address": "https://…"}}
"""

import json
from pathlib import Path
from typing import Any

from longreward.errors import DataError
from longreward.utils.jsonl import open_atomic

NAME = "files.lock.json"


class Lock:
    """The lock of one folder; raises DataError where it cannot be read."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._rows = self._read()

    def checksum(self, key: str) -> str | None:
        """What was recorded of the file; None: nothing yet."""
        found = self._rows.get(key)
        return None if found is None else str(found["sha256"])

    def record(self, key: str, *, sha256: str, size: int, address: str) -> None:
        """Keeps what a file is, on the disk; StateError where that refuses."""
        row = {"sha256": sha256, "bytes": size, "address": address}
        self._rows = self._read() | {key: row}  # another process may have fetched another benchmark meanwhile
        with open_atomic(self.path) as file:
            file.write(json.dumps(dict(sorted(self._rows.items())), indent=2) + "\n")

    def _read(self) -> dict[str, Any]:
        try:
            rows = json.loads(self.path.read_text(encoding="utf-8"))
            if not all(len(row["sha256"]) == 64 for row in rows.values()):
                raise ValueError("an entry without a sha256 of 64 digits")
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror or error}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(
                f"{self.path} is no lock of fetched files ({error}); get it back from version control, or move it "
                "aside: what is fetched next is then recorded anew"
            ) from error
        assert isinstance(rows, dict)
        return rows
