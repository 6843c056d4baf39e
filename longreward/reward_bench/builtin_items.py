"""The built-in labelled items: what a judge can be measured with before there are labels of one's own."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from longreward.builtin.corpus import write_corpus
from longreward.reward_bench.corpus_items import corpus_pairs, damaged_lists, damaged_pairs
from longreward.reward_bench.hard_items import hard_lists, hard_pairs
from longreward.reward_bench.items import Item

CASES = 20
"""Of each kind of made ones, in pairs and in lists."""
DOCUMENTS = 25
"""Of the corpus, with four questions each."""


def builtin_items(cases: int = CASES, documents: int = DOCUMENTS) -> Iterator[Item]:
    """Pairs and lists with known labels, easy ones first; the same on every machine."""
    yield from damaged_pairs(cases)
    yield from _corpus(documents)
    yield from hard_pairs(cases)
    yield from damaged_lists(cases)
    yield from hard_lists(cases)


def _corpus(documents: int) -> Iterator[Item]:
    with TemporaryDirectory() as folder:
        written = write_corpus(Path(folder), documents=documents)
        yield from corpus_pairs(written.corpus, written.gold)
