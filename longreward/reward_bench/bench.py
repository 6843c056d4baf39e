"""All rewards that were asked for, held against the labels: LongReward with and without each dimension, SRM, pairwise.

found = await measure(params, items, ledger=ledger, pairwise=True, srm=None)
found.agreements[0].accuracy     # LongReward's over all pairs
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from longreward.benchmarks.types import IntervalOptions
from longreward.judge import open_judge
from longreward.judge.budget import Budget
from longreward.params import Params
from longreward.reward_bench.agreement import Agreement, Rewards, compute_agreements
from longreward.reward_bench.items import Item
from longreward.reward_bench.rewards import (
    PAIRWISE,
    PairwiseMatch,
    RewardModelScores,
    compare_items,
    rewards_by_variant,
    score_items,
)

SRM = "srm"


@dataclass(frozen=True)
class BenchResult:
    """The figures with all that they rest on."""

    items: int
    judge: str
    srm: str | None
    """The reward model's name; None: none was asked for."""
    agreements: tuple[Agreement, ...]
    comparisons: int
    undecided: int
    """Comparisons of two responses whose orders disagree, or that find neither better."""
    asked: dict[str, float]
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
    """Asks the judge for what the ledger lacks; `score.strategy` counts as full.

    `progress(done, total)` counts items, once for the comparisons and once for the scores.

    The JudgeError family where the judge fails, BudgetReached at `score.budget`; what was answered stays in the ledger.
    """
    total, met = len(items), list[PairwiseMatch]()
    compared = total if pairwise else 0
    score = params.score.model_copy(update={"strategy": "full"})
    with Budget(score.budget, params.prices) as budget:
        async with open_judge(params.judge, ledger=ledger, budget=budget) as judge:
            if pairwise:
                met = await compare_items(
                    judge, params.pair.pairwise, items, progress=lambda done: progress(done, total + compared)
                )
            scored = await score_items(
                judge,
                score,
                items,
                ledger=ledger,
                progress=lambda done: progress(compared + done, total + compared),
            )
            name, asked = judge.name, judge.metrics()
    rewards: dict[str, list[Rewards]] = rewards_by_variant(scored)
    if srm:
        rewards[SRM] = srm.rewards
    if pairwise:
        rewards[PAIRWISE] = [each.rewards for each in met]
    return BenchResult(
        items=total,
        judge=name,
        srm=srm.model if srm else None,
        agreements=tuple(compute_agreements(items, rewards, intervals or IntervalOptions())),
        comparisons=sum(each.comparisons for each in met),
        undecided=sum(each.undecided for each in met),
        asked=asked,
    )
