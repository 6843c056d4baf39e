"""Where a record stands, as an editor or a parquet viewer counts."""

from collections.abc import Iterator
from typing import Literal, NamedTuple, Protocol

from longreward.jsonl import Row, RowError


class Place(NamedTuple):
    """Lines of a text file count from 1, rows of everything else from 0."""

    file: str
    unit: Literal["line", "row"]
    number: int

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.number}"

    def within(self, file: str) -> str:
        """The words for it in a sentence about `file`: "line 4", or "line 4 of b.jsonl" from another one."""
        here = f"{self.unit} {self.number}"
        return here if self.file == file else f"{here} of {self.file}"


class Source(Protocol):
    """Records that can be read more than once, always in the same order."""

    @property
    def name(self) -> str:
        """As the settings have it."""

    def rows(self) -> Iterator[tuple[Place, Row | RowError]]:
        """Each record, or why it cannot be read as one; DataError where nothing more can be read at all."""

    def columns(self) -> list[str]:
        """The names of the fields: of the schema, or seen in the first `LOOKED_AT` records. Empty: unknown."""


LOOKED_AT = 100  # records whose fields are listed where no schema names them
