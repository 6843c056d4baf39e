"""BM25: rank chunks by the terms that they share with a statement.

The paper ranks by the similarity of embeddings. BM25 is the default here because it needs no model: a statement mostly
repeats the wording of the response, and a faithful response the wording of the document.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from longreward.retrieval.config import RetrieverConfig
from longreward.retrieval.ranking import RankingIndex
from longreward.retrieval.terms import extract_ngrams, extract_terms, untested_scripts

if TYPE_CHECKING:
    from bm25s import BM25

log = logging.getLogger(__name__)

_warned_scripts: set[str] = set()  # in this process


class Bm25Retriever:
    """A Retriever over words or n-grams and, for scripts without spaces, pairs of characters (see `terms`)."""

    def __init__(self, config: RetrieverConfig | None = None) -> None:
        self._config = config or RetrieverConfig()

    def index(self, chunks: Sequence[str]) -> "Bm25Index":
        return Bm25Index(self._config, chunks)

    def settings(self) -> dict[str, str | int | float]:
        settings: dict[str, str | int | float] = {"retriever": "bm25"}
        # Omitted for the values of earlier score files.
        if self._config.term_kind != "words":
            settings["retriever_terms"] = self._config.term_kind
        if self._config.user_query_weight:
            settings["retriever_user_query_weight"] = self._config.user_query_weight
        return settings

    def metrics(self) -> dict[str, float]:
        return {}

    async def close(self) -> None:
        pass


class Bm25Index(RankingIndex):
    """The BM25 index of one document. Chunks with equal scores are ranked by position, so results are reproducible."""

    def __init__(self, config: RetrieverConfig, chunks: Sequence[str]) -> None:
        super().__init__(len(chunks))
        for script in set(untested_scripts(chunks)) - _warned_scripts:
            _warned_scripts.add(script)
            log.warning(
                "BM25 was not tested on texts in the script %s: it may miss evidence, and statements are then scored "
                "as not supported. Set score.retriever.kind to http or local, with a multilingual embedding model.",
                script,
            )
        self._extract = extract_ngrams if config.term_kind == "ngrams" else extract_terms
        self._query_weight = config.user_query_weight
        self._vocabulary: dict[str, int] = {}
        token_ids = [
            [self._vocabulary.setdefault(term, len(self._vocabulary)) for term in self._extract(chunk)]
            for chunk in chunks
        ]
        self._bm25: BM25 | None = None
        if self._vocabulary:
            import bm25s

            logging.getLogger("bm25s").setLevel(logging.WARNING)  # importing bm25s 0.3 sets it to DEBUG
            self._bm25 = bm25s.BM25()
            self._bm25.index((token_ids, self._vocabulary), create_empty_token=False, show_progress=False)

    async def rank(self, statements: Sequence[str], query: str = "") -> list[list[int]]:
        """Return, for each statement, the numbers of the chunks that share a term with it or with `query`."""
        return await asyncio.to_thread(self.rank_statements, statements, query)

    def rank_statements(self, statements: Sequence[str], query: str = "") -> list[list[int]]:
        """Return what `rank` returns, in the calling thread."""
        query_ids = self._term_ids(query) if self._query_weight else []
        query_scores = self._scores(query_ids)
        rankings = []
        for statement in statements:
            term_ids = self._term_ids(statement)
            scores = self._scores(term_ids)
            if query_ids:
                # A score is a sum over terms: without this factor, a long query would outweigh a short statement.
                scores = scores + self._query_weight * len(term_ids) / len(query_ids) * query_scores
            order = (-scores).argsort(kind="stable")
            rankings.append(order[: np.count_nonzero(scores > 0)].tolist())
        return rankings

    def _term_ids(self, text: str) -> list[int]:
        return [self._vocabulary[term] for term in self._extract(text) if term in self._vocabulary]

    def _scores(self, term_ids: list[int]) -> NDArray[np.float32]:
        if self._bm25 is None or not term_ids:
            return np.zeros(self._size, np.float32)
        scores: NDArray[np.float32] = self._bm25.get_scores_from_ids(term_ids)
        return scores
