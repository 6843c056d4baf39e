"""LongBench: twelve sets of questions and summaries, scored by LongReward's judge and by LongBench's own metrics."""

from longreward.benchmarks.longbench.benchmark import LongBench
from longreward.benchmarks.longbench.data import SETS, LongBenchCase, SetName

__all__ = ["SETS", "LongBench", "LongBenchCase", "SetName"]
