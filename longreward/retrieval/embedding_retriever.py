"""Rank chunks by the cosine similarity of their embeddings to a statement's, as the paper does (section 3.1)."""

import asyncio
from collections.abc import Sequence

import numpy as np

from longreward.retrieval.config import RetrieverConfig
from longreward.retrieval.embedders import Vectors
from longreward.retrieval.embedding_cache import CachedEmbedder, Vector


class EmbeddingRetriever:
    """A Retriever that ranks by embeddings; closes the embedder."""

    def __init__(self, config: RetrieverConfig, embedder: CachedEmbedder) -> None:
        self._config = config
        self._embedder = embedder

    def index(self, chunks: Sequence[str]) -> "EmbeddingIndex":
        """Index one document; its chunks are embedded at the first search."""
        return EmbeddingIndex(self._config, self._embedder, chunks)

    def settings(self) -> dict[str, str | int]:
        config = self._config
        settings = {
            "retriever": config.kind,
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


class EmbeddingIndex:
    """The index of one document. Equal similarities are ranked by position; a blank chunk has similarity 0."""

    def __init__(self, config: RetrieverConfig, embedder: CachedEmbedder, chunks: Sequence[str]) -> None:
        self._config = config
        self._embedder = embedder
        self._chunks = [self._prepare(config.passage_prefix, chunk) for chunk in chunks]
        self._chunk_vectors: Vectors | None = None  # (chunks, dimensions)

    async def search(self, queries: Sequence[str], k: int) -> list[list[int]]:
        """Return, for each query, the numbers of the best `k` chunks in document order."""
        if k >= len(self._chunks):
            return [list(range(len(self._chunks))) for _ in queries]
        query_texts = [self._prepare(self._config.query_prefix, query) for query in queries]
        chunks = self._chunks if self._chunk_vectors is None else []
        vectors = await self._embedder.embed([*chunks, *query_texts])
        return await asyncio.to_thread(self._rank, vectors[: len(chunks)], vectors[len(chunks) :], k)

    def _rank(self, chunks: Sequence[Vector | None], queries: Sequence[Vector | None], k: int) -> list[list[int]]:
        if self._chunk_vectors is None:
            dimensions = max((len(vector) for vector in chunks if vector is not None), default=0)
            zeros = np.zeros(dimensions, np.float32)
            self._chunk_vectors = np.stack([zeros if vector is None else vector for vector in chunks])
        ranked = []
        for query in queries:
            if query is None or not self._chunk_vectors.shape[1]:
                ranked.append(list(range(k)))
                continue
            # Matrix products of equal rows may differ in the last digits; rounding makes them equal again.
            ranking = (-np.round(self._chunk_vectors @ query, 6)).argsort(kind="stable")
            ranked.append(sorted(int(index) for index in ranking[:k]))
        return ranked

    def _prepare(self, prefix: str, text: str) -> str:
        truncated = text[: self._config.max_characters]
        return prefix + truncated if truncated.strip() else ""
