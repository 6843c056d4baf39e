"""Files that come all together, or not at all: what was made is taken away again where something fails."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from longreward.errors import StateError


@dataclass
class FileTransaction:
    """What was made so far, to be taken away again: `files` one by one, `trees` with all that they hold by then, and
    `folders` where nothing is in them any more."""

    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    trees: list[Path] = field(default_factory=list)
    before: list[Callable[[], object]] = field(default_factory=list)
    """Called before anything is taken away."""

    def write(self, path: Path, content: bytes) -> None:
        """Writes a file, and makes its folders where they are missing."""
        missing = [place for place in path.parents if not place.exists()]
        self.folders += reversed(missing)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.files.append(path)
        path.write_bytes(content)

    def undo(self) -> None:
        """Takes it all away."""
        for call in self.before:
            call()
        for file in self.files:
            file.unlink(missing_ok=True)
        for tree in self.trees:
            shutil.rmtree(tree, ignore_errors=True)
        for folder in reversed(self.folders):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


@contextmanager
def rollback_on_error() -> Iterator[FileTransaction]:
    """Gives the list to add to; raises StateError where the disk refuses."""
    made = FileTransaction()
    try:
        yield made
    except OSError as error:
        made.undo()
        raise StateError(f"{error.filename or 'the folder'} cannot be written: {error.strerror or error}") from error
    except BaseException:
        made.undo()
        raise
