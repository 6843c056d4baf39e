"""BM25: rank chunks by the words that they share with a statement.

The paper ranks by the similarity of embeddings. BM25 is the default here because it needs no model: a statement mostly
repeats the wording of the response, and a faithful response the wording of the document.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from longreward.retrieval.terms import extract_terms, untested_scripts

if TYPE_CHECKING:
    from bm25s import BM25

log = logging.getLogger(__name__)

_warned_scripts: set[str] = set()  # in this process


class Bm25Retriever:
    """A Retriever over words and, for scripts without spaces, pairs of adjacent characters (see `terms`)."""

    def index(self, chunks: Sequence[str]) -> "Bm25Index":
        return Bm25Index(chunks)

    def settings(self) -> dict[str, str | int]:
        return {"retriever": "bm25"}

    def metrics(self) -> dict[str, float]:
        return {}

    async def close(self) -> None:
        pass


class Bm25Index:
    """The BM25 index of one document. Chunks with equal scores are ranked by position, so results are reproducible."""

    def __init__(self, chunks: Sequence[str]) -> None:
        for script in set(untested_scripts(chunks)) - _warned_scripts:
            _warned_scripts.add(script)
            log.warning(
                "BM25 was not tested on texts in the script %s: it may miss evidence, and statements are then scored "
                "as not supported. Set score.retriever.kind to http or local with a multilingual embedding model.",
                script,
            )
        self._size = len(chunks)
        self._vocabulary: dict[str, int] = {}
        token_ids = [
            [self._vocabulary.setdefault(term, len(self._vocabulary)) for term in extract_terms(chunk)]
            for chunk in chunks
        ]
        self._bm25: BM25 | None = None
        if self._vocabulary:
            import bm25s

            logging.getLogger("bm25s").setLevel(logging.WARNING)  # importing bm25s 0.3 sets it to DEBUG
            self._bm25 = bm25s.BM25()
            self._bm25.index((token_ids, self._vocabulary), create_empty_token=False, show_progress=False)

    async def search(self, queries: Sequence[str], k: int) -> list[list[int]]:
        """Return, for each query, the numbers of the best `k` chunks in document order."""
        return await asyncio.to_thread(lambda: [self._search(query, k) for query in queries])

    def _search(self, query: str, k: int) -> list[int]:
        query_ids = [self._vocabulary[term] for term in extract_terms(query) if term in self._vocabulary]
        if self._bm25 is None or not query_ids or k >= self._size:
            return list(range(min(k, self._size)))
        ranking = (-self._bm25.get_scores_from_ids(query_ids)).argsort(kind="stable")
        return sorted(int(index) for index in ranking[:k])
