"""LongBench's twelve sets of questions and summaries, judge-scored as LongReward does, with LongBench's own metrics."""

from longreward.benchmarks.longbench.benchmark import LongBench
from longreward.benchmarks.longbench.cases import LongBenchCase
from longreward.benchmarks.longbench.sets import SETS, SetName

__all__ = ["SETS", "LongBench", "LongBenchCase", "SetName"]
