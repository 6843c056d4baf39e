"""Rank chunks by the cosine similarity of their embeddings to a statement's, as the paper does (section 3.1)."""

import asyncio
from collections.abc import Sequence

import numpy as np

from longreward.retrieval.config import RetrieverConfig
from longreward.retrieval.embedders import Vectors
from longreward.retrieval.embedding_cache import CachedEmbedder, Vector
from longreward.retrieval.ranking import RankingIndex


class EmbeddingRetriever:
    """A Retriever that ranks by embeddings; closes the embedder."""

    def __init__(self, config: RetrieverConfig, embedder: CachedEmbedder) -> None:
        self._config = config
        self._embedder = embedder

    def index(self, chunks: Sequence[str]) -> "EmbeddingIndex":
        """Index one document; its chunks are embedded at the first search."""
        return EmbeddingIndex(self._config, self._embedder, chunks)

    def settings(self) -> dict[str, str | int | float]:
        config = self._config
        settings = {
            "retriever": config.embedding_kind,
            "retriever_model": config.model,
            "retriever_revision": config.revision,
            "retriever_dimensions": config.dimensions,
            "query_prefix": config.query_prefix,
            "passage_prefix": config.passage_prefix,
            "retriever_max_characters": config.max_characters,
        }
        return {name: value for name, value in settings.items() if value not in (None, "")}

    def metrics(self) -> dict[str, float]:
        return {f"embeddings/{name}": float(count) for name, count in self._embedder.counts.items()}

    async def close(self) -> None:
        await self._embedder.close()


class EmbeddingIndex(RankingIndex):
    """The index of one document. Equal similarities are ranked by position; a blank chunk has similarity 0."""

    def __init__(self, config: RetrieverConfig, embedder: CachedEmbedder, chunks: Sequence[str]) -> None:
        super().__init__(len(chunks))
        self._config = config
        self._embedder = embedder
        self._chunks = [self._prepare(config.passage_prefix, chunk) for chunk in chunks]
        self._chunk_vectors: Vectors | None = None  # (chunks, dimensions)

    async def rank(self, statements: Sequence[str], query: str = "") -> list[list[int]]:
        """Return, for each statement, the numbers of all chunks, or none for a blank statement.

        `query` is not used: the paper searches with the statement alone.
        """
        statement_texts = [self._prepare(self._config.query_prefix, statement) for statement in statements]
        chunks = self._chunks if self._chunk_vectors is None else []
        vectors = await self._embedder.embed([*chunks, *statement_texts])
        return await asyncio.to_thread(self._rank, vectors[: len(chunks)], vectors[len(chunks) :])

    def _rank(self, chunks: Sequence[Vector | None], statements: Sequence[Vector | None]) -> list[list[int]]:
        if self._chunk_vectors is None:
            dimensions = max((len(vector) for vector in chunks if vector is not None), default=0)
            zeros = np.zeros(dimensions, np.float32)
            self._chunk_vectors = np.stack([zeros if vector is None else vector for vector in chunks])
        rankings: list[list[int]] = []
        for statement in statements:
            if statement is None or not self._chunk_vectors.shape[1]:
                rankings.append([])
                continue
            # Matrix products of equal rows may differ in the last digits; rounding makes them equal again.
            rankings.append((-np.round(self._chunk_vectors @ statement, 6)).argsort(kind="stable").tolist())
        return rankings

    def _prepare(self, prefix: str, text: str) -> str:
        truncated = text[: self._config.max_characters]
        return prefix + truncated if truncated.strip() else ""
