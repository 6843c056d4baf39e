"""LongReward's rewards for labelled items, whole and with each dimension left out, all from one scoring."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from longreward.errors import ConfigError
from longreward.judge import Judge
from longreward.records import DIMENSIONS, EQUAL_WEIGHTS, Dimension, ScoredResponse
from longreward.reward.config import ScoreConfig
from longreward.reward.scorer import Scorer, score_examples
from longreward.reward_bench.agreement import Rewards
from longreward.reward_bench.items import Item, as_records

WHOLE = "longreward"
VARIANTS: Mapping[str, Mapping[Dimension, float]] = {WHOLE: EQUAL_WEIGHTS} | {
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
        scored = score_examples(judge, config, map(as_records, items), scorer=scorer, progress=progress)
        return [each.responses async for each in scored]


def rewards_of(scored: Sequence[Sequence[ScoredResponse]]) -> dict[str, list[Rewards]]:
    """The rewards by variant; None where a dimension that counts in it is unscored."""
    return {
        name: [[_reward(response, weights) for response in responses] for responses in scored]
        for name, weights in VARIANTS.items()
    }


def _reward(response: ScoredResponse, weights: Mapping[Dimension, float]) -> float | None:
    known = response.bounds(weights)
    return None if known is None else known[0]
