"""LongBench: twelve of its sets with LongReward's judge, or all 21 by its authors' protocol without a judge."""
