"""Score responses in shards: each holds all judge calls of some dozens of prompts."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from longreward.errors import NothingScored
from longreward.judge import Judge
from longreward.params import Params
from longreward.records import EQUAL_WEIGHTS, Dimension, Example, Response
from longreward.reward import ScoreConfig, ScoredExample, Scorer, score_examples
from longreward.reward.score_files import ScoreReport, open_scored_files
from longreward.tasks.shards import OnProgress, delete_shards, run_in_shards
from longreward.tasks.stage import StageRun
from longreward.tasks.workers import Workers
from longreward.tasks.workers.shard_tasks import ScoreShard, cached_exchanges, divide_limits, max_concurrent_shards

ScoringItem = tuple[Example, Sequence[Response]]
SHARD_LIMIT_S = 6 * 3600.0  # each judge call has its own timeout; this one ends a shard that hangs elsewhere


async def score_in_shards(
    name: str, judge: Judge, items: Sequence[ScoringItem], config: ScoreConfig, *, scorer: Scorer, folder: Path
) -> Iterable[ScoredExample]:
    """Score every response; files of finished shards are in `folder`, the judge's replies in its ledger."""

    async def score(shard: Sequence[ScoringItem], on_progress: OnProgress) -> Iterable[ScoredExample]:
        return [scored async for scored in score_examples(judge, scorer, shard, progress=on_progress)]

    return await run_in_shards(
        name,
        items,
        score,
        record=ScoredExample,
        folder=folder,
        size=judge.prompts_in_flight or config.shard_size,
        concurrency=2,  # the judge is busy while the last replies of one shard come in
        limit_s=None if judge.prompts_in_flight else SHARD_LIMIT_S,  # a batch may take a day, and ends by itself
        detail=judge.count_replies,
    )


async def score_with_workers(
    name: str, workers: Workers, items: Sequence[ScoringItem], params: Params, *, folder: Path
) -> Iterable[ScoredExample]:
    """Score every response on `workers`, which together keep to the judge's limits."""
    concurrency = max_concurrent_shards(params.judge, workers.capacity)
    judge = divide_limits(params.judge, concurrency)

    async def score(shard: Sequence[ScoringItem], on_progress: OnProgress) -> Iterable[ScoredExample]:
        cached = await cached_exchanges(params.judge, params.score, shard, ledger=workers.ledger)
        task = ScoreShard(judge, params.score, params.prices, list(shard), cached)
        return (await workers.run(name, task, limit_s=SHARD_LIMIT_S)).records

    return await run_in_shards(
        name,
        items,
        score,
        record=ScoredExample,
        folder=folder,
        size=params.score.shard_size,
        concurrency=concurrency,
        remote=True,
    )


def write_scored_files(
    out: Path,
    scored: Iterable[ScoredExample],
    settings: Mapping[str, str | int | float],
    *,
    weights: Mapping[Dimension, float] = EQUAL_WEIGHTS,
) -> ScoreReport:
    """Write scored_responses.jsonl (complete ones), unscored_responses.jsonl and chunk_info.jsonl."""
    report = ScoreReport(weights)
    with open_scored_files(
        complete=out / "scored_responses.jsonl",
        unscored=out / "unscored_responses.jsonl",
        chunk_info=out / "chunk_info.jsonl",
        settings=settings,
        report=report,
    ) as write:
        for example in scored:
            write(example)
    return report


def require_scores(
    run: StageRun, report: ScoreReport, judge: str, *, shards: Iterable[str], usable: bool = False
) -> None:
    """Raise NothingScored if the report has no score (with `usable`, none that a pair could be made of).

    The finished shards of these names are deleted: the next try asks the judge again.
    """
    try:
        report.require_scores(judge, usable=usable)
    except NothingScored:
        for name in shards:
            delete_shards(run.state, name)
        run.mlflow.log_metrics(run.metrics | report.metrics())  # now, since a failing stage logs nothing at its end
        raise
