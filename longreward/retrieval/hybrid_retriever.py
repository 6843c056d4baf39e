"""Hybrid retrieval: fuse the rankings of BM25 and of embeddings.

Embeddings match paraphrases; BM25 matches rare names, numbers and identifiers, and languages that the embedding model
does not support. `ranking.fuse_rankings` combines both without a weight to tune.
"""

import asyncio
from collections.abc import Sequence

from longreward.retrieval.bm25 import Bm25Index, Bm25Retriever
from longreward.retrieval.config import RetrieverConfig
from longreward.retrieval.embedding_retriever import EmbeddingIndex, EmbeddingRetriever
from longreward.retrieval.ranking import RankingIndex, fuse_rankings


class HybridRetriever:
    """A Retriever that fuses two rankings; closes both retrievers."""

    def __init__(self, config: RetrieverConfig, bm25: Bm25Retriever, embeddings: EmbeddingRetriever) -> None:
        self._config = config
        self._bm25 = bm25
        self._embeddings = embeddings

    def index(self, chunks: Sequence[str]) -> "HybridIndex":
        return HybridIndex(self._config, len(chunks), self._bm25.index(chunks), self._embeddings.index(chunks))

    def settings(self) -> dict[str, str | int | float]:
        embeddings = self._embeddings.settings()
        return {
            **self._bm25.settings(),
            **embeddings,
            "retriever": "hybrid",
            "retriever_embeddings": embeddings["retriever"],
            "retriever_rrf_constant": self._config.rrf_constant,
        }

    def metrics(self) -> dict[str, float]:
        return self._embeddings.metrics()

    async def close(self) -> None:
        await self._embeddings.close()
        await self._bm25.close()


class HybridIndex(RankingIndex):
    """The two indexes of one document. A chunk without a term of the statement is ranked by its embedding alone."""

    def __init__(self, config: RetrieverConfig, size: int, bm25: Bm25Index, embeddings: EmbeddingIndex) -> None:
        super().__init__(size)
        self._config = config
        self._bm25 = bm25
        self._embeddings = embeddings

    async def rank(self, statements: Sequence[str], query: str = "") -> list[list[int]]:
        by_terms, by_embeddings = await asyncio.gather(
            self._bm25.rank(statements, query), self._embeddings.rank(statements, query)
        )
        return [
            fuse_rankings(rankings, self._config.rrf_constant) for rankings in zip(by_terms, by_embeddings, strict=True)
        ]
