"""What calls took, and the small file that remembers it over all tries of one scoring.

The file is written in place before each call and after it, in one write, so that a killed process leaves the truth:
what it had spent, and the most that its calls in flight could cost, which the next try counts as spent.
"""

import fcntl
import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from longreward.errors import StateError


@dataclass(frozen=True)
class Usage:
    """Calls with their tokens; `money` counts those of known price."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    money: float = 0.0

    @property
    def tokens(self) -> int:
        """Those of prompts and answers together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(*(getattr(self, each.name) - getattr(other, each.name) for each in fields(self)))


class UsageStore:
    """The file at `path`, held by this process alone; None remembers nothing.

    Raises StateError where another process holds it, or it cannot be read or written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.found = Usage()
        """What earlier tries spent."""
        self._file: int | None = None
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.found = _read(os.pread(self._file, SIZE, 0))
        except BlockingIOError:
            self.close()
            raise StateError(
                f"{path}: another process is spending this budget now; let it end first, or give this scoring other "
                "files or another state folder (LONGREWARD_STATE)"
            ) from None
        except (OSError, ValueError, TypeError) as error:
            self.close()
            raise StateError(
                f"{path}: what was spent cannot be read: {error}. Where the file is damaged, move it aside: what "
                "was spent before is then forgotten, and no answer is lost"
            ) from error

    def write(self, spent: Usage, held: Usage) -> None:
        """Remembers both before it returns."""
        if self._file is None:
            return
        line = json.dumps({"spent": asdict(spent), "held": asdict(held)})
        try:
            os.pwrite(self._file, line.ljust(SIZE - 1).encode() + b"\n", 0)
        except OSError as error:
            raise StateError(f"{self.path}: what was spent cannot be kept: {error.strerror or error}") from error

    def close(self) -> None:
        """Lets the next process have it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _read(content: bytes) -> Usage:
    if not content.strip():
        return Usage()
    kept = json.loads(content)
    return Usage(**kept["spent"]) + Usage(**kept["held"])


SIZE = 512
