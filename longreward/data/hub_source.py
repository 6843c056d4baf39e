"""A data set of the Hugging Face hub, or a downloaded copy of one, streamed row by row."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field

from longreward.config import Config
from longreward.data.source import COLUMN_SAMPLE_ROWS, SourceLocation, valid_row
from longreward.errors import DataError
from longreward.utils.jsonl import Row, RowError

T = TypeVar("T")
SCHEME = "hub:"


class HubConfig(Config):
    """Which part of a hub data set is read if `source` is `hub:<name>`; ignored otherwise."""

    split: str = "train"
    """The split, such as `sft` of THUDM/LongReward-10k. Slices such as `train[:100]` cannot be streamed."""

    config: str | None = None
    """The configuration (subset), if the data set has several."""

    revision: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$")
    """The commit, all 40 digits. Required, because a branch or tag may contain other data tomorrow."""


@dataclass(frozen=True)
class HubSource:
    """One split of a data set, read with `datasets`."""

    name: str
    path: str
    """A name on the hub, or a folder with the files of such a data set."""
    hub: HubConfig
    key: str
    """The setting that names the source, for error messages."""

    def rows(self) -> Iterator[tuple[SourceLocation, Row | RowError]]:
        """Yield each row; raises DataError if the hub cannot be reached or has no such data set."""
        # `datasets` downloads while it iterates, so each step may raise.
        rows = iter(self._open())
        display_name, number = f"{self.name}[{self.hub.split}]", 0
        while (row := self._convert_errors(lambda: next(rows, None))) is not None:
            yield SourceLocation(display_name, "row", number), valid_row(row)
            number += 1
        if not number:
            raise DataError(f"{display_name} is empty")

    def columns(self) -> list[str]:
        """Return the data set's features, or the columns of its first rows."""
        if names := self._open().column_names:
            return list(names)
        rows = (row for _, row in islice(self.rows(), COLUMN_SAMPLE_ROWS) if isinstance(row, dict))
        return list(dict.fromkeys(name for row in rows for name in row))

    def _open(self) -> Any:
        from datasets import load_dataset

        # A local folder has no revision; `datasets` rejects one.
        revision = None if Path(self.path).is_dir() else self.hub.revision
        return self._convert_errors(
            lambda: load_dataset(self.path, self.hub.config, split=self.hub.split, revision=revision, streaming=True)
        )

    def _convert_errors(self, call: Callable[[], T]) -> T:
        from datasets.exceptions import DatasetsError

        try:
            return call()
        except (OSError, ValueError, TypeError, RuntimeError, DatasetsError) as error:
            # Messages of `datasets` span many lines.
            hub, hub_key, reason = self.hub, hub_section(self.key), " ".join(str(error).split())
            advice = (
                f"\nCheck the name, {hub_key}.split, {hub_key}.config and {hub_key}.revision; a private or gated data "
                "set needs HF_TOKEN in the environment. Without a network, copy it to this machine and name its "
                "folder:\n"
                f"  hf download --repo-type dataset {self.path} --revision {hub.revision} "
                f"--local-dir data/raw/{self.path}\n"
                f"  {self.key}: hub:data/raw/{self.path}"
            )
            raise DataError(
                f"{self.name} (split {hub.split}, config {hub.config or 'the default'}) cannot be read: {reason} "
                f"({type(error).__name__}){'' if Path(self.path).is_dir() else advice}"
            ) from error


def hub_section(key: str) -> str:
    """Return the section of the hub settings next to the setting `key`: `prepare.hub` for `prepare.source`."""
    return f"{key.rpartition('.')[0]}.hub"
