"""Counts and token totals of a ledger, by judge and template and by embedding model."""

from dataclasses import dataclass
from pathlib import Path

from longreward.judge.ledger.reader import LedgerReader

SELECT_EXCHANGE_STATS = """
SELECT judge, revision, template, count(DISTINCT question), count(*), sum(outcome = 'readable'),
       sum(outcome = 'unreadable'), sum(outcome = 'refused'), sum(prompt_tokens), sum(completion_tokens),
       sum(cached_tokens), min(recorded_at), max(recorded_at)
FROM exchanges GROUP BY judge, revision, template ORDER BY judge, revision, template
"""
SELECT_VECTOR_STATS = """
SELECT model, revision, count(*), sum(length(vector)), min(recorded_at), max(recorded_at)
FROM vectors GROUP BY model, revision ORDER BY model, revision
"""


@dataclass(frozen=True)
class ExchangeStats:
    """Statistics of one judge, revision and template; times are seconds since 1970."""

    judge: str
    revision: str
    template: str
    requests: int
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
    """Statistics of one embedding model and revision; `bytes` counts the vectors alone."""

    model: str
    revision: str
    vectors: int
    bytes: int
    first: float
    last: float


@dataclass(frozen=True)
class LedgerStats:
    """Statistics of one file; `bytes` includes the write-ahead log."""

    path: Path
    version: int
    bytes: int
    exchanges: tuple[ExchangeStats, ...]
    vectors: tuple[VectorStats, ...]
    quarantined: int


def collect_stats(path: Path) -> LedgerStats:
    """Count the rows of a ledger without verifying checksums; other processes may write to it meanwhile.

    Raises DataError or StateError as `LedgerReader` does.
    """
    with LedgerReader(path) as reader:
        files = (path, path.with_name(f"{path.name}-wal"))
        return LedgerStats(
            path=path,
            version=reader.version,
            bytes=sum(file.stat().st_size for file in files if file.exists()),
            exchanges=tuple(ExchangeStats(*row) for row in reader.select(SELECT_EXCHANGE_STATS)),
            vectors=tuple(VectorStats(*row) for row in reader.select(SELECT_VECTOR_STATS)),
            quarantined=sum(count for _, count in reader.quarantined()),
        )
