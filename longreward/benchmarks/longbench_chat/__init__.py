"""LongBench-Chat: real questions about long texts, each graded beside three answers that people scored."""

from longreward.benchmarks.longbench_chat.benchmark import LongBenchChat, LongBenchChatCase

__all__ = ["LongBenchChat", "LongBenchChatCase"]
