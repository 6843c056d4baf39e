"""A data set of the Hugging Face hub, or a downloaded copy of one, as a stream: it is never in memory as a whole."""

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
    """Which part of a hub data set is read, where `source` is `hub:<name>`; not looked at otherwise."""

    split: str = "train"
    """The split, such as `sft` of THUDM/LongReward-10k; slices such as `train[:100]` are not for streams."""

    config: str | None = None
    """The configuration (subset), where the data set has several."""

    revision: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}$")
    """The commit, all 40 digits; demanded, since a branch or tag may hold other data tomorrow under the same name."""


@dataclass(frozen=True)
class HubSource:
    """One split of a data set, read through `datasets`."""

    name: str
    path: str
    """A name on the hub, or an existing folder with such a data set's files."""
    hub: HubConfig

    def rows(self) -> Iterator[tuple[SourceLocation, Row | RowError]]:
        """Each row, numbered from 0; DataError where the hub cannot be reached or has no such data set."""
        rows = iter(self._opened())
        shown, number = f"{self.name}[{self.hub.split}]", 0
        while (row := self._or_data_error(lambda: next(rows, None))) is not None:
            yield SourceLocation(shown, "row", number), valid_row(row)
            number += 1
        if not number:
            raise DataError(f"{shown} is empty")

    def columns(self) -> list[str]:
        """The data set's features where it says them, else the fields of its first rows."""
        if named := self._opened().column_names:
            return list(named)
        return list(dict.fromkeys(name for _, row in islice(self.rows(), COLUMN_SAMPLE_ROWS) for name in row))  # type: ignore[union-attr]

    def _opened(self) -> Any:
        from datasets import load_dataset

        hub = self.hub
        revision = None if Path(self.path).is_dir() else hub.revision
        return self._or_data_error(
            lambda: load_dataset(self.path, hub.config, split=hub.split, revision=revision, streaming=True)
        )

    def _or_data_error(self, call: Callable[[], T]) -> T:
        from datasets.exceptions import DatasetsError

        try:
            return call()
        except (OSError, ValueError, TypeError, RuntimeError, DatasetsError) as error:
            where = (
                "" if Path(self.path).is_dir() else WITHOUT_NETWORK.format(name=self.path, revision=self.hub.revision)
            )
            reason = " ".join(str(error).split())
            raise DataError(
                f"{self.name} (split {self.hub.split}, config {self.hub.config or 'the default'}) cannot be read: "
                f"{reason} ({type(error).__name__}){where}"
            ) from error


WITHOUT_NETWORK = (
    "\nCheck the name, prepare.hub.split, prepare.hub.config and prepare.hub.revision; a private or gated data set "
    "needs HF_TOKEN in the environment. Where there is no network, bring a copy and name its folder:\n"
    "  hf download --repo-type dataset {name} --revision {revision} --local-dir data/raw/{name}\n"
    "  prepare.source: hub:data/raw/{name}"
)
