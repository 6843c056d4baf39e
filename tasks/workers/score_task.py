"""A shard of scoring for a worker: the prompts with their responses, and what the judge has said of them before."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from longreward.judge import JudgeConfig, open_judge
from longreward.judge.budget import Budget
from longreward.judge.ledger import Exchange, Ledger
from longreward.judge.usage import PricesConfig
from longreward.planning.dry_run import DryRunJudge
from longreward.records import Example, Response
from longreward.reward import ScoreConfig, Scorer, score_examples
from longreward.tasks.workers.shard_task import ShardResult
from longreward.tasks.workers.worker_ledger import WorkerContext, own_ledger, shard_of, to_send

Items = Sequence[tuple[Example, Sequence[Response]]]
LIMITS = ("max_concurrency", "requests_per_minute", "tokens_per_minute")


@dataclass(frozen=True)
class ScoreErrand:
    """`judge` has a worker's share of the limits; `known` are the exchanges of the project's ledger on these items."""

    judge: JudgeConfig
    score: ScoreConfig
    prices: PricesConfig
    items: Items
    known: Sequence[Exchange]

    @property
    def shard(self) -> str:
        """Named after the examples."""
        return shard_of(example.id for example, _ in self.items)

    async def do(self, place: WorkerContext) -> ShardResult:
        """Gives ScoredExamples. Every answer is in the worker's ledger before the next question is asked."""
        file = own_ledger(place, self.shard, self.known)
        with Budget(prices=self.prices) as budget:
            async with (
                open_judge(self.judge, ledger=file, budget=budget) as judge,
                Scorer(self.score, ledger=file) as scorer,
            ):
                records = [scored async for scored in score_examples(judge, self.score, self.items, scorer=scorer)]
                figures = judge.metrics() | scorer.figures() | budget.metrics()
        return ShardResult(records, figures, to_send(place, file))


def share(judge: JudgeConfig, places: int) -> JudgeConfig:
    """The judge with its limits divided among so many that ask at once, in whole numbers of at least 1."""
    own = {name: max(limit // places, 1) for name in LIMITS if (limit := getattr(judge, name)) is not None}
    dimensions = {
        dimension: changed | {n: max(v // places, 1) for n, v in changed.items() if n in LIMITS and v is not None}
        for dimension, changed in judge.dimensions.items()
    }
    return judge.model_copy(update={**own, "dimensions": dimensions})


def places_within(judge: JudgeConfig, places: int) -> int:
    """As many of the places as can have a share of at least 1 of every limit."""
    limits: list[int | None] = [getattr(each, name) for each, _ in judge.judges() for name in LIMITS]
    return min([places, *(limit for limit in limits if limit is not None)])


async def known_answers(judge: JudgeConfig, score: ScoreConfig, items: Items, *, ledger: Path) -> list[Exchange]:
    """What the ledger holds on these items: scoring is rehearsed on them, and asks nobody.

    In full, since what `extremes` asks next may hang on an answer that is not there yet.
    """
    kept = _Listening(ledger)
    full = score.model_copy(update={"strategy": "full"})
    async with DryRunJudge.open(judge, ledger=kept) as rehearsal, Scorer(full) as scorer:
        for example, responses in items:
            await scorer.score(rehearsal, example, responses)
    return kept.heard


class _Listening(Ledger):
    """A ledger that remembers what it gave."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.heard: list[Exchange] = []

    def find(self, request_id: str) -> list[Exchange]:
        found = super().find(request_id)
        self.heard += found
        return found
