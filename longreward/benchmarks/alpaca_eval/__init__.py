"""AlpacaEval 2: answers to 805 instructions against a baseline's, as a judge's probabilities prefer them."""

from longreward.benchmarks.alpaca_eval.benchmark import AlpacaEval

__all__ = ["AlpacaEval"]
