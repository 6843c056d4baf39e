"""What will it cost: calls, tokens, money and time of scoring, from the actual documents and the ledger."""

from longreward.planning.plan import Line, StagePlan, merged, plan_scoring
from longreward.planning.ranges import Range

__all__ = ["Line", "Range", "StagePlan", "merged", "plan_scoring"]
