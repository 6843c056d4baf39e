"""The rewards that the benchmark compares, each computed for all responses of labelled items.

LongReward          with all dimensions, without each of them, and each alone, from one scoring
pairwise judging    each response against each other in both orders; the reward is the share of comparisons won
reward model        its score, on its own scale
length only         the number of characters: a reward that is no better rewards length

Helpfulness and logicality are judged from query and response alone. An item without a context is scored by these two
only: their mean is its LongReward, and no request about a document is sent.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

from longreward.errors import ConfigError
from longreward.judge import Judge
from longreward.pairs.config import SelectionConfig
from longreward.pairs.pairwise import Comparison, PairwiseConfig, pairwise_pair
from longreward.records import DIMENSIONS, EQUAL_WEIGHTS, Dimension, Response, ScoredResponse, Verdict
from longreward.reward.concurrent_scoring import score_examples
from longreward.reward.config import ScoreConfig
from longreward.reward.ratings import DimensionInput
from longreward.reward.scorer import DIMENSION_JUDGES, Scorer
from longreward.reward_bench.agreement import Rewards
from longreward.reward_bench.items import Item, to_records
from longreward.utils.concurrency import gather, with_progress

if TYPE_CHECKING:
    from longreward.pairs.srm import SrmConfig
    from longreward.reward.reward_model import RewardModel

PAIRWISE = "pairwise judging"
LENGTH = "length only"
REWARD_MODEL = "reward model"
WITHOUT_CONTEXT: tuple[Dimension, ...] = ("helpfulness", "logicality")
"""The dimensions that need no document."""
NO_CONTEXT = "the item has no context"
MAX_ITEMS_IN_FLIGHT = 64  # keeps any judge busy, and their prompts fit into memory


class LabelledItemScorer(Scorer):
    """A scorer that judges responses to a query without a document by the dimensions that need none."""

    async def _judge_dimensions(self, item: DimensionInput) -> dict[Dimension, Verdict]:
        if item.document.text:
            return await super()._judge_dimensions(item)
        judged = await gather(DIMENSION_JUDGES[dimension](item) for dimension in WITHOUT_CONTEXT)
        verdicts: dict[Dimension, Verdict] = dict.fromkeys(DIMENSIONS, Verdict(score=None, reason=NO_CONTEXT))
        return verdicts | dict(zip(WITHOUT_CONTEXT, judged, strict=True))


async def score_items(
    judge: Judge,
    config: ScoreConfig,
    items: Sequence[Item],
    *,
    ledger: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[tuple[ScoredResponse, ...]]:
    """Return the verdicts on every response, in the order of the items.

    `progress` receives the number of finished items; embeddings are cached beside `ledger` (None: in memory). Raises
    ConfigError for a strategy that leaves responses unscored, and the errors of the judge.
    """
    if config.strategy != "full":
        raise ConfigError("labelled items need every response's reward: set score.strategy to full")
    async with LabelledItemScorer(config, ledger=ledger) as scorer:
        scored = score_examples(judge, scorer, map(to_records, items), progress=progress)
        return [example.responses async for example in scored]


def reward_variants(dimensions: Sequence[Dimension]) -> dict[str, Mapping[Dimension, float]]:
    """Return the weights of LongReward, of its ablations and of single dimensions.

    A dimension with weight 0 may be unscored.
    """
    everything: dict[Dimension, float] = {**EQUAL_WEIGHTS, **dict.fromkeys(dimensions, 1.0)}
    return {
        "longreward": everything,
        **{f"without {dimension}": {**everything, dimension: 0.0} for dimension in dimensions},
        **{f"{dimension} only": {**dict.fromkeys(everything, 0.0), dimension: 1.0} for dimension in dimensions},
    }


def rewards_by_variant(items: Sequence[Item], scored: Sequence[Sequence[ScoredResponse]]) -> dict[str, list[Rewards]]:
    """Return the rewards of each variant; None where a dimension with a weight is unscored.

    If no item has a context, variants that differ only in dimensions of the document are left out.
    """
    # Items without a context have no verdicts in optional dimensions.
    judged = [response.dimensions for responses in scored for response in responses]
    variants = reward_variants(max(judged, key=len, default=DIMENSIONS))
    if not any(item.context for item in items):
        variants = {name: variants[name] for name in ("longreward", *(f"{name} only" for name in WITHOUT_CONTEXT))}
    return {
        name: [
            [_reward(item, response, weights) for response in responses]
            for item, responses in zip(items, scored, strict=True)
        ]
        for name, weights in variants.items()
    }


def _reward(item: Item, response: ScoredResponse, weights: Mapping[Dimension, float]) -> float | None:
    if not item.context:
        weights = {dimension: weights[dimension] * (dimension in WITHOUT_CONTEXT) for dimension in DIMENSIONS}
    bounds = response.reward_bounds(weights) if any(weights.values()) else None
    return bounds[0] if bounds else None


def length_rewards(items: Sequence[Item]) -> list[Rewards]:
    """Return the number of characters of each response."""
    return [[float(len(response)) for response in item.responses] for item in items]


@dataclass(frozen=True)
class PairwiseMatch:
    """The comparisons of one item's responses."""

    rewards: Rewards
    """The share of its comparisons that each response won; all None where a comparison was unreadable, since the
    responses would not have been compared with the same others."""
    comparisons: int
    undecided: int
    """Comparisons whose orders disagree, or that find neither better: half a win for each."""
    unreadable: int


async def compare_items(
    judge: Judge,
    config: PairwiseConfig,
    items: Sequence[Item],
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> list[PairwiseMatch]:
    """Compare all responses of each item, in the order of the items; equal texts tie without a request.

    `progress` receives the number of finished items. Raises the errors of the judge.
    """
    semaphore = asyncio.Semaphore(max(MAX_ITEMS_IN_FLIGHT, judge.prompts_in_flight or 0))

    async def compare(item: Item) -> PairwiseMatch:
        async with semaphore:
            return await _compare_all(judge, config, item)

    return await gather(map(with_progress(compare, progress), items))


async def _compare_all(judge: Judge, config: PairwiseConfig, item: Item) -> PairwiseMatch:
    example, responses = to_records(item)

    async def compare(pair: tuple[Response, Response]) -> Comparison | None:
        # Without a document, the prompt says that none is shown.
        tokens = config.context_tokens if item.context else 0
        result = await pairwise_pair(judge, SelectionConfig(min_scored=2), example, pair, context_tokens=tokens)
        return result.comparisons[0] if result.comparisons else None  # None: equal texts

    pairs = list(combinations(responses, 2))
    comparisons = await gather(map(compare, pairs))
    # Equal texts, and comparisons whose orders disagree, give each response half a win.
    wins = dict.fromkeys((response.id for response in responses), 0.0)
    for pair, comparison in zip(pairs, comparisons, strict=True):
        better = comparison.better if comparison else None
        for response in pair:
            wins[response.id] += 0.5 if better is None else float(better == response.id)
    requested = [comparison for comparison in comparisons if comparison is not None]
    unreadable = sum(comparison.reason is not None for comparison in requested)
    return PairwiseMatch(
        rewards=[None if unreadable else wins[response.id] / (len(responses) - 1) for response in responses],
        comparisons=len(requested),
        undecided=sum(comparison.better is None and comparison.reason is None for comparison in requested),
        unreadable=unreadable,
    )


@dataclass(frozen=True)
class RewardModelScores:
    """The scores of a reward model; None where query and response do not fit its window."""

    model: str
    rewards: list[Rewards]


def open_reward_model(config: "SrmConfig", name: str, *, state: Path) -> "RewardModel":
    """Load the model `name`, else that of `config`, else the tiny built-in one, which is trained in `state` if missing.

    PolicyError where it cannot be loaded or is not a reward model.
    """
    from longreward.pairs.tiny_reward_model import tiny_reward_model
    from longreward.reward.reward_model import load_reward_model

    if name:
        config = config.model_copy(update={"model": name})
    path = None if config.model else tiny_reward_model(config.tiny, state / "reward-models")
    return load_reward_model(config, path, setting="--reward-model" if name else None)


def score_with_reward_model(
    model: "RewardModel", items: Sequence[Item], *, progress: Callable[[int, int], None] = lambda done, total: None
) -> RewardModelScores:
    """Score all responses, in the order of the items; `progress(done, total)` counts responses."""
    ranked = model.rank(map(to_records, items), progress=progress)
    return RewardModelScores(model.name, [[reward.reward for reward in item.rewards] for item in ranked])
