"""AlpacaEval 2: a judge compares answers to 805 instructions with those of a baseline."""

from longreward.benchmarks.alpaca_eval.benchmark import AlpacaEval

__all__ = ["AlpacaEval"]
