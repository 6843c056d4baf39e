"""Scoring in shards: each holds all judge calls of some dozens of prompts."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from longreward.errors import NothingScored
from longreward.judge import Judge
from longreward.params import Params
from longreward.records import EQUAL_WEIGHTS, Dimension, Example, Response
from longreward.reward import ScoreConfig, ScoredExample, Scorer, score_examples
from longreward.reward.score_files import ScoredFilesWriter, ScoreReport
from longreward.tasks.shards import OnProgress, delete_shards, run_in_shards
from longreward.tasks.stage import StageRun
from longreward.tasks.workers import Workers
from longreward.tasks.workers.shard_tasks import ScoreShard, cached_exchanges, divide_limits, max_concurrent_shards
from longreward.utils.progress import show_progress

WithResponses = tuple[Example, Sequence[Response]]
SHARD_LIMIT_S = 6 * 3600.0  # the judge's client has its own limit a call; this one ends what hangs elsewhere


def with_responses(examples: Iterable[Example], responses: Iterable[Response]) -> list[WithResponses]:
    """Each example that has responses, with them in their order."""
    groups: dict[str, list[Response]] = {}
    for response in responses:
        groups.setdefault(response.example_id, []).append(response)
    return [(example, groups[example.id]) for example in examples if example.id in groups]


async def score_in_shards(
    name: str, judge: Judge, items: Sequence[WithResponses], config: ScoreConfig, *, scorer: Scorer, folder: Path
) -> Iterator[ScoredExample]:
    """Scores every response; finished shards lie in `folder`, single answers of the judge in its ledger.

    Two shards at once, so that the judge is still busy while the last calls of one come in.
    """

    async def score(shard: Sequence[WithResponses], tell: OnProgress) -> Iterable[ScoredExample]:
        return [scored async for scored in score_examples(judge, config, shard, scorer=scorer, progress=tell)]

    with show_progress(name) as progress:
        return await run_in_shards(
            name,
            items,
            score,
            record=ScoredExample,
            folder=folder,
            size=judge.prompts_in_flight or config.shard_size,
            at_once=2,
            limit_s=None if judge.prompts_in_flight else SHARD_LIMIT_S,  # a batch may take a day, and ends by itself
            progress=progress,
        )


async def score_with_workers(
    name: str, workers: Workers, items: Sequence[WithResponses], params: Params, *, folder: Path
) -> Iterator[ScoredExample]:
    """`score_in_shards`, each shard by one of `workers`, which together keep to the judge's limits."""
    concurrency = max_concurrent_shards(params.judge, workers.capacity)
    judge = divide_limits(params.judge, concurrency)

    async def score(shard: Sequence[WithResponses], tell: OnProgress) -> Iterable[ScoredExample]:
        cached = await cached_exchanges(params.judge, params.score, shard, ledger=workers.ledger)
        task = ScoreShard(judge, params.score, params.prices, list(shard), cached)
        return (await workers.run(name, task, limit_s=SHARD_LIMIT_S)).records

    with show_progress(name) as progress:
        return await run_in_shards(
            name,
            items,
            score,
            record=ScoredExample,
            folder=folder,
            size=params.score.shard_size,
            at_once=concurrency,
            progress=progress,
            elsewhere=True,
        )


def write_scored_files(
    out: Path,
    scored: Iterable[ScoredExample],
    settings: Mapping[str, str | int],
    *,
    weights: Mapping[Dimension, float] = EQUAL_WEIGHTS,
) -> ScoreReport:
    """Writes scored_responses.jsonl (complete ones), unscored_responses.jsonl and chunk_info.jsonl."""
    names = {"complete": "scored_responses", "unscored": "unscored_responses", "chunk_info": "chunk_info"}
    paths = {side: out / f"{name}.jsonl" for side, name in names.items()}
    with ScoredFilesWriter(**paths, settings=settings, weights=weights) as files:
        for example in scored:
            files.add(example)
    return files.report


def require_scores(
    run: StageRun, report: ScoreReport, judge: str, *, shards: Iterable[str], usable: bool = False
) -> None:
    """Raises NothingScored where the report has no score (with `usable`, none that a pair could be made of).

    The finished shards of these names are removed: the next try asks the judge again and does not read them back.
    """
    try:
        report.require_scores(judge, usable=usable)
    except NothingScored:
        for name in shards:
            delete_shards(run.state, name)
        run.tracked.figures(run.figures | report.metrics())  # now: a stage that stops reports nothing at its end
        raise
