"""LongBench's twelve sets of questions and summaries, judge-scored as LongReward does, with LongBench's own metrics."""

from longreward.benchmarks.longbench.benchmark import LongBench
from longreward.benchmarks.longbench.data import SETS, LongBenchCase, SetName

__all__ = ["SETS", "LongBench", "LongBenchCase", "SetName"]
