"""What will it cost: calls, tokens, money and time of scoring, from the actual documents and the ledger."""

from longreward.planning.plan import StagePlan, TemplatePlan, merge_plans, plan_scoring
from longreward.planning.reply_stats import Range

__all__ = ["Range", "StagePlan", "TemplatePlan", "merge_plans", "plan_scoring"]
