"""FactScore over long contexts: the share of an answer's atomic facts that the context supports, and their number."""

from longreward.benchmarks.factscore.benchmark import FactScore

__all__ = ["FactScore"]
