"""What a ledger holds, by judge and template and by embedding model."""

from dataclasses import dataclass
from pathlib import Path

from longreward.judge.ledger.reader import LedgerReader
from longreward.judge.ledger.schema import EXCHANGES, VECTORS


@dataclass(frozen=True)
class ExchangeStats:
    """Of one judge (its revision too) and template; times are seconds since 1970."""

    judge: str
    revision: str
    template: str
    questions: int
    exchanges: int
    readable: int
    unreadable: int
    refused: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    first: float
    last: float


@dataclass(frozen=True)
class VectorStats:
    """Of one embedding model; `bytes` are those of its vectors alone."""

    model: str
    revision: str
    vectors: int
    bytes: int
    first: float
    last: float


@dataclass(frozen=True)
class LedgerStats:
    """`aside`: rows that are served no more; `bytes` of the file with its write-ahead log."""

    path: Path
    version: int
    bytes: int
    exchanges: tuple[ExchangeStats, ...]
    vectors: tuple[VectorStats, ...]
    aside: int


def collect_stats(path: Path) -> LedgerStats:
    """Counts without a look at the checksums; a run may write meanwhile. Raises DataError or StateError as
    `LedgerFile`."""
    with LedgerReader(path) as file:
        there = file.tables
        return LedgerStats(
            path=path,
            version=file.version,
            bytes=sum(part.stat().st_size for part in (path, path.with_name(f"{path.name}-wal")) if part.exists()),
            exchanges=tuple(ExchangeStats(*row) for row in file.select(_EXCHANGES)) if EXCHANGES in there else (),
            vectors=tuple(VectorStats(*row) for row in file.select(_VECTORS)) if VECTORS in there else (),
            aside=file.select("SELECT count(*) FROM aside")[0][0] if file.has_aside else 0,
        )


_EXCHANGES = """
SELECT judge, revision, template, count(DISTINCT question), count(*), sum(outcome = 'readable'),
       sum(outcome = 'unreadable'), sum(outcome = 'refused'), sum(prompt_tokens), sum(completion_tokens),
       sum(cached_tokens), min(recorded_at), max(recorded_at)
FROM exchanges GROUP BY judge, revision, template ORDER BY judge, revision, template
"""
_VECTORS = """
SELECT model, revision, count(*), sum(length(vector)), min(recorded_at), max(recorded_at)
FROM vectors GROUP BY model, revision ORDER BY model, revision
"""
