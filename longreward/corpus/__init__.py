"""The built-in corpus: readable English documents made from a seed, questions, and measures that know the truth."""

from longreward.corpus.gold import GoldMeasures, GoldRow, measure
from longreward.corpus.grammar import Fact
from longreward.corpus.writing import WrittenCorpus, read_gold, write_corpus

__all__ = ["Fact", "GoldMeasures", "GoldRow", "WrittenCorpus", "measure", "read_gold", "write_corpus"]
