"""`sources.yaml` as records: what each benchmark's files are called, where they come from, and their checksums."""

import difflib
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from longreward.config import Config
from longreward.errors import ConfigError

TABLE = Path(__file__).parent / "sources.yaml"


class Row(Config):
    """What the table says of one file."""

    what: str
    addresses: tuple[str, ...]
    """Tried in order; none: it has to be brought by hand."""
    sha256: str | None = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int | None = Field(default=None, ge=1)
    about: str | None = None
    """The size in words where it is not known to the byte."""
    licence: str
    needed: bool = True
    members: dict[str, str] = Field(default_factory=dict)
    """Of an archive: what is unpacked of it, and to which place beside it."""


class Source(Row):
    """A row with its key."""

    benchmark: str
    name: str
    """Its place below the benchmark's folder."""

    @property
    def key(self) -> str:
        """`mt_bench/question.jsonl`: its place below the folder of all benchmarks."""
        return f"{self.benchmark}/{self.name}"

    @property
    def files(self) -> tuple[str, ...]:
        """The places below the benchmark's folder that a reader opens: its own, or those of its members."""
        return tuple(self.members.values()) or (self.name,)


def read_table(only: Sequence[str] = (), table: Path = TABLE) -> tuple[Source, ...]:
    """The sources of all benchmarks, or of those named; raises ConfigError for a name that the table does not have."""
    import yaml

    rows = yaml.safe_load(table.read_text(encoding="utf-8"))
    for name in only:
        if name not in rows:
            near = difflib.get_close_matches(name, rows, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the table has {', '.join(rows)}"
            raise ConfigError(f"no benchmark {name!r} has files to fetch; {hint}")
    return tuple(
        Source.parse({**row, "benchmark": benchmark, "name": name}, source=f"{table.name}: {benchmark}/{name}")
        for benchmark, files in rows.items()
        if not only or benchmark in only
        for name, row in files.items()
    )
