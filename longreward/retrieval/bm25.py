"""Ranks chunks by the words that they share with a statement.

The paper ranks by the similarity of embeddings. BM25 comes first here: a statement keeps the answer's wording, and a
faithful answer the document's.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from longreward.retrieval.ranking import Index
from longreward.script import HAN_RANGE

if TYPE_CHECKING:
    from bm25s import BM25


class Bm25Retriever:
    """BM25 over words and, for Chinese, pairs of neighbouring characters."""

    def index(self, chunks: Sequence[str]) -> Index:
        """See Retriever."""
        return Bm25Index(chunks)

    def settings(self) -> dict[str, str | int]:
        """See Retriever."""
        return {"retriever": "bm25"}

    def figures(self) -> dict[str, float]:
        """See Retriever."""
        return {}

    async def close(self) -> None:
        """See Retriever."""


class Bm25Index:
    """Equal scores go by position, so that results do not vary from run to run; so do statements of unknown words."""

    def __init__(self, chunks: Sequence[str]) -> None:
        self._size = len(chunks)
        self._vocabulary: dict[str, int] = {}
        numbers = [
            [self._vocabulary.setdefault(term, len(self._vocabulary)) for term in terms(chunk)] for chunk in chunks
        ]
        self._ranking = _quiet_bm25() if self._vocabulary else None
        if self._ranking is not None:
            self._ranking.index((numbers, self._vocabulary), create_empty_token=False, show_progress=False)

    async def search(self, queries: Sequence[str], k: int) -> list[list[int]]:
        """See Index."""
        return [self._best(query, k) for query in queries]

    def _best(self, query: str, k: int) -> list[int]:
        known = [self._vocabulary[term] for term in terms(query) if term in self._vocabulary]
        if self._ranking is None or not known or k >= self._size:
            return list(range(min(k, self._size)))
        order = (-self._ranking.get_scores_from_ids(known)).argsort(kind="stable")
        return sorted(int(place) for place in order[:k])


def terms(text: str) -> Iterator[str]:
    """What is compared: lower-cased words without an English plural's or genitive's s, and pairs of Han characters."""
    for match in TERM.finditer(text):
        run = match[0]
        if not match[1]:
            yield _stem(run.lower())
        elif len(run) == 1:
            yield run
        else:
            yield from map("".join, pairwise(run))


def _stem(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _quiet_bm25() -> "BM25":
    from bm25s import BM25

    logging.getLogger("bm25s").setLevel(logging.WARNING)  # the library sets it to DEBUG when it is imported
    return BM25()


TERM = re.compile(rf"([{HAN_RANGE}]+)|[^\W_{HAN_RANGE}]+")
