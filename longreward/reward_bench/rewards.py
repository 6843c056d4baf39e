"""LongReward's rewards for labelled items, whole and with each dimension left out, all from one scoring."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from longreward.errors import ConfigError
from longreward.judge import Judge
from longreward.pairs.config import PairwiseConfig
from longreward.pairs.pairwise import Comparison, pairwise_pair
from longreward.pairs.selection import PairConfig
from longreward.records import DIMENSIONS, EQUAL_WEIGHTS, Dimension, Example, Response, ScoredResponse
from longreward.reward.config import ScoreConfig
from longreward.reward.scorer import Scorer, score_examples
from longreward.reward_bench.agreement import Rewards
from longreward.reward_bench.items import Item, to_records
from longreward.utils.concurrency import gather, with_progress

ALL_DIMENSIONS = "longreward"
VARIANTS: Mapping[str, Mapping[Dimension, float]] = {ALL_DIMENSIONS: EQUAL_WEIGHTS} | {
    f"without {left_out}": {**EQUAL_WEIGHTS, left_out: 0.0} for left_out in DIMENSIONS
}
"""What each dimension counts for; one that is left out need have no score."""


async def score_items(
    judge: Judge,
    config: ScoreConfig,
    items: Sequence[Item],
    *,
    ledger: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[tuple[ScoredResponse, ...]]:
    """The four verdicts on every response, in the order of the items; equal questions are asked once (the ledger).

    `progress` is told how many items are complete; embeddings are kept at `ledger` (None: in memory). The JudgeError
    family where the judge fails.
    """
    if config.strategy != "full":
        raise ConfigError("labelled items need every response's reward: set score.strategy to full")
    async with Scorer(config, ledger=ledger) as scorer:
        scored = score_examples(judge, config, map(to_records, items), scorer=scorer, progress=progress)
        return [each.responses async for each in scored]


def rewards_by_variant(scored: Sequence[Sequence[ScoredResponse]]) -> dict[str, list[Rewards]]:
    """The rewards by variant; None where a dimension that counts in it is unscored."""
    return {
        name: [[_reward(response, weights) for response in responses] for responses in scored]
        for name, weights in VARIANTS.items()
    }


def _reward(response: ScoredResponse, weights: Mapping[Dimension, float]) -> float | None:
    known = response.bounds(weights)
    return None if known is None else known[0]


# Direct pairwise judging as a reward: each response against each other, in both orders, and what it wins counts.
#
# A comparison is won where both orders say so, else it is half won by each; one that cannot be read leaves the item's
# rewards out, since the responses would not have met the same others.


PAIRWISE = "pairwise judging"


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
    turns = asyncio.Semaphore(max(AT_ONCE, judge.prompts_in_flight or 0))

    async def meet(item: Item) -> PairwiseMatch:
        async with turns:
            return await _all_against_all(judge, two, item)

    return await gather(map(with_progress(meet, progress), items))


async def _all_against_all(judge: Judge, two: PairConfig, item: Item) -> PairwiseMatch:
    example, responses = to_records(item)
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


# A reward model's figures for labelled items, on its own scale.


if TYPE_CHECKING:
    from longreward.pairs.config import SrmConfig
    from longreward.pairs.srm import RewardModel


@dataclass(frozen=True)
class RewardModelScores:
    """Which model, and what it gave each item's responses; None where query and response do not fit its window."""

    model: str
    rewards: list[Rewards]


def score_with_reward_model(
    model: "RewardModel", items: Sequence[Item], *, progress: Callable[[int, int], None] = lambda done, total: None
) -> RewardModelScores:
    """In the order of the items; `progress(done, all)` counts responses."""
    ranked = model.rank(map(to_records, items), progress=progress)
    return RewardModelScores(model.name, [[one.reward for one in each.rewards] for each in ranked])


def open_reward_model(config: "SrmConfig", name: str, *, state: Path) -> "RewardModel":
    """The model of that name, else of `config`, else the tiny one, made in the state folder where it is not there.

    PolicyError where it cannot be loaded or is no reward model.
    """
    from longreward.pairs.srm import load_reward_model
    from longreward.pairs.tiny_reward_model import tiny_reward_model

    if name:
        config = config.model_copy(update={"model": name})
    made = None if config.model else tiny_reward_model(config.tiny, state / "reward-models")
    return load_reward_model(config, made)
