"""Scoring in shards: each holds all judge calls of some dozens of prompts."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from longreward.formats import extraction_row, scored_row
from longreward.jsonl import to_line, writing
from longreward.judging import Judge
from longreward.records import DIMENSIONS, Example, Response, ScoredResponse
from longreward.reward import ScoreConfig, ScoredExample, Scorer, score_examples
from tasks.progress import progress_bar
from tasks.shards import Tell, in_shards

WithResponses = tuple[Example, Sequence[Response]]
SHARD_LIMIT_S = 6 * 3600.0  # the judge's client has its own limit a call; this one ends what hangs elsewhere


def with_responses(examples: Iterable[Example], responses: Iterable[Response]) -> list[WithResponses]:
    """Each example that has responses, with them in their order."""
    groups: dict[str, list[Response]] = {}
    for response in responses:
        groups.setdefault(response.example_id, []).append(response)
    return [(example, groups[example.id]) for example in examples if example.id in groups]


async def score_in_shards(
    name: str, judge: Judge, items: Sequence[WithResponses], config: ScoreConfig, *, folder: Path
) -> Iterator[ScoredExample]:
    """Scores every response; finished shards lie in `folder`, single answers of the judge in its ledger.

    Two shards at once, so that the judge is still busy while the last calls of one come in.
    """
    scorer = Scorer(config)

    async def score(shard: Sequence[WithResponses], tell: Tell) -> Iterable[ScoredExample]:
        return [scored async for scored in score_examples(judge, config, shard, scorer=scorer, progress=tell)]

    with progress_bar(name) as progress:
        return await in_shards(
            name,
            items,
            score,
            record=ScoredExample,
            folder=folder,
            size=config.shard_size,
            at_once=2,
            limit_s=SHARD_LIMIT_S,
            progress=progress,
        )


def write_scored_files(out: Path, scored: Iterable[ScoredExample], config: ScoreConfig) -> dict[str, float]:
    """Writes scored_responses.jsonl (complete ones), unscored_responses.jsonl and chunk_info.jsonl; returns figures."""
    settings = Scorer(config).settings
    complete: list[ScoredResponse] = []
    figures = {"prompts": 0.0, "incomplete": 0.0} | {f"unscored/{dimension}": 0.0 for dimension in DIMENSIONS}
    with ExitStack() as stack:
        files = {
            name: stack.enter_context(writing(out / f"{name}.jsonl"))
            for name in ("scored_responses", "unscored_responses", "chunk_info")
        }
        for example in scored:
            figures["prompts"] += 1
            files["chunk_info"].write(to_line(extraction_row(example.extraction)))
            for one in example.responses:
                file = files["scored_responses" if one.complete else "unscored_responses"]
                file.write(to_line(scored_row(one, example.extraction, settings)))
                if one.complete:
                    complete.append(one)
                else:
                    figures["incomplete"] += 1
                    for dimension in DIMENSIONS:
                        figures[f"unscored/{dimension}"] += one.verdicts[dimension].score is None
    return figures | _means(complete)


def _means(complete: Sequence[ScoredResponse]) -> dict[str, float]:
    if not complete:
        return {"complete": 0.0}
    means: dict[str, float] = {
        d: sum(one.verdicts[d].score or 0.0 for one in complete) / len(complete) for d in DIMENSIONS
    }
    return {"complete": float(len(complete)), "reward": sum(means.values()) / len(means), **means}
