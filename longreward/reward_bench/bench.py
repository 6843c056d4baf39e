"""Run the benchmark: compute all requested rewards and compare them with the labels.

result = await run_bench(params, items, ledger=ledger, pairwise=True, reward_model=None)
result.agreements[0].accuracy     # LongReward's over all pairs
result.published["rewardbench-2"]["longreward"]["mean"]
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from longreward.evaluation.statistics import IntervalOptions
from longreward.judge import open_judge
from longreward.judge.budget import Budget
from longreward.params import Params
from longreward.reward.config import ScoreConfig
from longreward.reward_bench.agreement import Agreement, Rewards, compute_agreements
from longreward.reward_bench.items import Item
from longreward.reward_bench.published_measures import BenchmarkMeasures, compute_published_measures
from longreward.reward_bench.rewards import (
    LENGTH,
    PAIRWISE,
    REWARD_MODEL,
    PairwiseMatch,
    RewardModelScores,
    compare_items,
    length_rewards,
    rewards_by_variant,
    score_items,
)


@dataclass(frozen=True)
class BenchResult:
    """The agreement of each reward, and how it was obtained."""

    items: int
    without_context: int
    judge: str | None
    """None: no judge was queried."""
    reward_model: str | None
    """The name of the reward model; None: there was none."""
    agreements: tuple[Agreement, ...]
    published: BenchmarkMeasures
    """The measures that the items' benchmarks define for themselves."""
    comparisons: int
    undecided: int
    """Comparisons of two responses whose orders disagree, or that find neither better."""
    judge_metrics: dict[str, float]
    """The judge's counts: calls, ledger hits, tokens, …"""


async def run_bench(
    params: Params,
    items: Sequence[Item],
    *,
    ledger: Path | None,
    judged: bool = True,
    pairwise: bool = True,
    reward_model: RewardModelScores | None = None,
    intervals: IntervalOptions | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> BenchResult:
    """Judge the items, with cached replies from the ledger; `score.strategy` is taken as full.

    Without `judged`, only the rewards that need no judge are compared. `progress(done, total)` counts items, once for
    the comparisons and once for the scores. Raises the errors of the judge, and BudgetExceeded at `score.budget`;
    replies received until then stay in the ledger.
    """
    rewards: dict[str, list[Rewards]] = {}
    matches: list[PairwiseMatch] = []
    judge_name, judge_metrics = None, {}
    if judged:
        comparisons = len(items) if pairwise else 0
        total = comparisons + len(items)
        with Budget(params.score.budget, params.prices) as budget:
            async with open_judge(params.judge, ledger=ledger, budget=budget) as judge:
                if pairwise:
                    matches = await compare_items(
                        judge, params.pair.pairwise, items, progress=lambda done: progress(done, total)
                    )
                scored = await score_items(
                    judge,
                    full_scoring(params.score),
                    items,
                    ledger=ledger,
                    progress=lambda done: progress(comparisons + done, total),
                )
                judge_name, judge_metrics = judge.name, judge.metrics()
        rewards |= rewards_by_variant(items, scored)
    if reward_model:
        rewards[REWARD_MODEL] = reward_model.rewards
    if matches:
        rewards[PAIRWISE] = [match.rewards for match in matches]
    rewards[LENGTH] = length_rewards(items)
    return BenchResult(
        items=len(items),
        without_context=sum(not item.context for item in items),
        judge=judge_name,
        reward_model=reward_model.model if reward_model else None,
        agreements=tuple(compute_agreements(items, rewards, intervals or IntervalOptions())),
        published=compute_published_measures(items, rewards),
        comparisons=sum(match.comparisons for match in matches),
        undecided=sum(match.undecided for match in matches),
        judge_metrics=judge_metrics,
    )


def full_scoring(config: ScoreConfig) -> ScoreConfig:
    """Return the settings with the strategy full: others leave responses without a reward that cannot be in a pair."""
    return config.model_copy(update={"strategy": "full"})
