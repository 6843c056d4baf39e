"""Direct pairwise judging as a reward: each response against each other, in both orders, and what it wins counts.

A comparison is won where both orders say so, else it is half won by each; one that cannot be read leaves the item's
rewards out, since the responses would not have met the same others.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from longreward.judge import Judge
from longreward.pairs.config import PairwiseConfig
from longreward.pairs.pairwise import Comparison, pairwise_pair
from longreward.pairs.selection import PairConfig
from longreward.records import Example, Response
from longreward.reward_bench.agreement import Rewards
from longreward.reward_bench.items import Item, as_records
from longreward.utils.concurrency import gather, with_progress

NAME = "pairwise judging"


@dataclass(frozen=True)
class PairwiseMatch:
    """What the comparisons of one item's responses say."""

    rewards: Rewards
    """The share of its comparisons that each won, 0 to 1; all None where one could not be read."""
    comparisons: int
    undecided: int
    """Comparisons whose orders disagree, or that find neither better."""
    unreadable: int


async def compare_items(
    judge: Judge,
    config: PairwiseConfig,
    items: Sequence[Item],
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> list[PairwiseMatch]:
    """In the order of the items; `progress` is told how many are complete.

    Equal texts tie without a question. The JudgeError family where the judge fails.
    """
    two = PairConfig(method="pairwise", min_scored=2, pairwise=config)
    turns = asyncio.Semaphore(max(AT_ONCE, judge.prompts_at_once or 0))

    async def meet(item: Item) -> PairwiseMatch:
        async with turns:
            return await _all_against_all(judge, two, item)

    return await gather(map(with_progress(meet, progress), items))


async def _all_against_all(judge: Judge, two: PairConfig, item: Item) -> PairwiseMatch:
    example, responses = as_records(item)
    couples = list(combinations(responses, 2))
    made = await gather(_compared(judge, two, example, couple) for couple in couples)
    won = dict.fromkeys((response.id for response in responses), 0.0)
    for couple, comparison in zip(couples, made, strict=True):
        for response in couple:
            better = comparison.better if comparison else None
            won[response.id] += 0.5 if better is None else float(better == response.id)
    unreadable = sum(comparison is not None and comparison.reason is not None for comparison in made)
    others = len(responses) - 1
    return PairwiseMatch(
        rewards=[None if unreadable else won[response.id] / others for response in responses],
        comparisons=sum(comparison is not None for comparison in made),
        undecided=sum(one is not None and one.better is None and one.reason is None for one in made),
        unreadable=unreadable,
    )


async def _compared(
    judge: Judge, two: PairConfig, example: Example, couple: tuple[Response, Response]
) -> Comparison | None:
    """None for equal texts."""
    found = await pairwise_pair(judge, two, example, couple)
    return found.comparisons[0] if found.comparisons else None


AT_ONCE = 64  # items: they keep any judge busy, and what their prompts hold fits into memory
