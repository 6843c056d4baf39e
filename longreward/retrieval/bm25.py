"""Ranks chunks by the words that they share with a statement.

The paper ranks by the similarity of embeddings. BM25 comes first here: a statement keeps the answer's wording, and a
faithful answer the document's.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from longreward.retrieval.terms import extract_terms, untested_scripts

if TYPE_CHECKING:
    from bm25s import BM25


class Bm25Retriever:
    """BM25 over words and, for scripts without spaces, pairs of neighbouring characters (see `terms`)."""

    def index(self, chunks: Sequence[str]) -> "Bm25Index":
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
        _warn_of_untested_scripts(chunks)
        self._size = len(chunks)
        self._vocabulary: dict[str, int] = {}
        numbers = [
            [self._vocabulary.setdefault(term, len(self._vocabulary)) for term in extract_terms(chunk)]
            for chunk in chunks
        ]
        self._ranking = _quiet_bm25() if self._vocabulary else None
        if self._ranking is not None:
            self._ranking.index((numbers, self._vocabulary), create_empty_token=False, show_progress=False)

    async def search(self, queries: Sequence[str], k: int) -> list[list[int]]:
        """See Index."""
        return await asyncio.to_thread(self._search, queries, k)

    def _search(self, queries: Sequence[str], k: int) -> list[list[int]]:
        return [self._best(query, k) for query in queries]

    def _best(self, query: str, k: int) -> list[int]:
        if self._ranking is None or k >= self._size:
            return list(range(min(k, self._size)))
        known = [self._vocabulary[term] for term in extract_terms(query) if term in self._vocabulary]
        if not known:
            return list(range(min(k, self._size)))
        order = (-self._ranking.get_scores_from_ids(known)).argsort(kind="stable")
        return sorted(int(position) for position in order[:k])


def _warn_of_untested_scripts(chunks: Sequence[str]) -> None:
    """Once for each script and process."""
    for script in untested_scripts(chunks):
        if script not in _WARNED_OF:
            _WARNED_OF.add(script)
            _LOG.warning(
                "BM25 was not tested on texts in the script %s: it may miss evidence, and statements are then scored "
                "as not supported. score.retriever with kind http or local and a multilingual embedding model finds "
                "evidence in any script that the model knows.",
                script,
            )


def _quiet_bm25() -> "BM25":
    from bm25s import BM25

    logging.getLogger("bm25s").setLevel(logging.WARNING)  # the library sets it to DEBUG when it is imported
    return BM25()


_LOG = logging.getLogger(__name__)
_WARNED_OF: set[str] = set()
