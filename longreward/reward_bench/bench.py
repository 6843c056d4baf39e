"""Run the benchmark: compute all requested rewards and compare them with the labels.

result = await run_bench(params, items, ledger=ledger, pairwise=True, srm=None)
result.agreements[0].accuracy     # LongReward's over all pairs
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from longreward.evaluation.statistics import IntervalOptions
from longreward.judge import open_judge
from longreward.judge.budget import Budget
from longreward.params import Params
from longreward.reward_bench.agreement import Agreement, Rewards, compute_agreements
from longreward.reward_bench.items import Item
from longreward.reward_bench.rewards import (
    LENGTH,
    PAIRWISE,
    PairwiseMatch,
    RewardModelScores,
    compare_items,
    length_rewards,
    rewards_by_variant,
    score_items,
)

SRM = "srm"


@dataclass(frozen=True)
class BenchResult:
    """The agreement of each reward, and how it was obtained."""

    items: int
    judge: str
    srm: str | None
    """The name of the reward model; None: there was none."""
    agreements: tuple[Agreement, ...]
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
    pairwise: bool = True,
    srm: RewardModelScores | None = None,
    intervals: IntervalOptions | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> BenchResult:
    """Judge the items, with cached replies from the ledger; `score.strategy` is taken as full.

    `progress(done, total)` counts items, once for the comparisons and once for the scores. Raises the errors of the
    judge, and BudgetExceeded at `score.budget`; replies received until then stay in the ledger.
    """
    comparisons = len(items) if pairwise else 0
    total = comparisons + len(items)
    # Other strategies leave responses unscored that cannot become chosen or rejected.
    score = params.score.model_copy(update={"strategy": "full"})
    matches: list[PairwiseMatch] = []
    with Budget(score.budget, params.prices) as budget:
        async with open_judge(params.judge, ledger=ledger, budget=budget) as judge:
            if pairwise:
                matches = await compare_items(
                    judge, params.pair.pairwise, items, progress=lambda done: progress(done, total)
                )
            scored = await score_items(
                judge, score, items, ledger=ledger, progress=lambda done: progress(comparisons + done, total)
            )
            judge_name, judge_metrics = judge.name, judge.metrics()
    rewards: dict[str, list[Rewards]] = rewards_by_variant(scored)
    if srm:
        rewards[SRM] = srm.rewards
    if pairwise:
        rewards[PAIRWISE] = [match.rewards for match in matches]
    rewards[LENGTH] = length_rewards(items)
    return BenchResult(
        items=len(items),
        judge=judge_name,
        srm=srm.model if srm else None,
        agreements=tuple(compute_agreements(items, rewards, intervals or IntervalOptions())),
        comparisons=sum(match.comparisons for match in matches),
        undecided=sum(match.undecided for match in matches),
        judge_metrics=judge_metrics,
    )
