"""Counts and token totals of a ledger, by judge and template and by embedding model."""

from dataclasses import dataclass
from pathlib import Path

from longreward.judge.ledger.reader import LedgerReader

# `first` and `last` are seconds since 1970.
SELECT_EXCHANGE_STATS = """
SELECT judge, revision, template, count(DISTINCT question) AS requests, count(*) AS exchanges,
       sum(outcome = 'readable') AS readable, sum(outcome = 'unreadable') AS unreadable,
       sum(outcome = 'refused') AS refused, sum(prompt_tokens) AS prompt_tokens,
       sum(completion_tokens) AS completion_tokens, sum(cached_tokens) AS cached_tokens,
       min(recorded_at) AS first, max(recorded_at) AS last
FROM exchanges GROUP BY judge, revision, template ORDER BY judge, revision, template
"""
SELECT_VECTOR_STATS = """
SELECT model, revision, count(*) AS vectors, sum(length(vector)) AS bytes, min(recorded_at) AS first,
       max(recorded_at) AS last
FROM vectors GROUP BY model, revision ORDER BY model, revision
"""
StatsRow = dict[str, str | int | float]


@dataclass(frozen=True)
class LedgerStats:
    """Statistics of one file; `bytes` includes the write-ahead log."""

    path: Path
    version: int
    bytes: int
    exchanges: list[StatsRow]
    """One row per judge, revision and template."""
    vectors: list[StatsRow]
    """One row per embedding model and revision."""


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
            exchanges=reader.select(SELECT_EXCHANGE_STATS),
            vectors=reader.select(SELECT_VECTOR_STATS),
        )
