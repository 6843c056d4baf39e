"""Ranks chunks by the cosine of their embedding's angle to a statement's, as the paper does (section 3.1)."""

import asyncio
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from longreward.retrieval.config import RetrieverConfig
from longreward.retrieval.embedding_cache import CachedEmbedder, Vector


class EmbeddingRetriever:
    """A Retriever over `texts`, which it closes."""

    def __init__(self, config: RetrieverConfig, texts: CachedEmbedder) -> None:
        self._config = config
        self._texts = texts

    def index(self, chunks: Sequence[str]) -> "EmbeddingIndex":
        """See Retriever; the chunks are embedded at the first search."""
        return EmbeddingIndex(self._config, self._texts, chunks)

    def settings(self) -> dict[str, str | int]:
        """See Retriever."""
        config = self._config
        named = {
            "retriever": config.kind,
            "retriever_model": config.model,
            "retriever_revision": config.revision,
            "retriever_dimensions": config.dimensions,
            "query_prefix": config.query_prefix,
            "passage_prefix": config.passage_prefix,
            "retriever_max_characters": config.max_characters,
        }
        return {name: value for name, value in named.items() if value not in (None, "")}

    def figures(self) -> dict[str, float]:
        """See Retriever."""
        return {f"embeddings/{name}": float(count) for name, count in self._texts.figures.items()}

    async def close(self) -> None:
        """See Retriever."""
        await self._texts.close()


class EmbeddingIndex:
    """Equal similarities go by position, so that results do not vary from run to run; a blank chunk's is 0."""

    def __init__(self, config: RetrieverConfig, texts: CachedEmbedder, chunks: Sequence[str]) -> None:
        self._config = config
        self._texts = texts
        self._chunks = [self._text(config.passage_prefix, chunk) for chunk in chunks]
        self._passages: NDArray[np.float32] | None = None  # a row a chunk

    async def search(self, queries: Sequence[str], k: int) -> list[list[int]]:
        """See Index."""
        if k >= len(self._chunks):
            return [list(range(len(self._chunks))) for _ in queries]
        asked = [self._text(self._config.query_prefix, query) for query in queries]
        chunks = self._chunks if self._passages is None else []
        found = await self._texts.of([*chunks, *asked])
        return await asyncio.to_thread(self._rank, found[: len(chunks)], found[len(chunks) :], k)

    def _rank(self, chunks: Sequence[Vector | None], queries: Sequence[Vector | None], k: int) -> list[list[int]]:
        if self._passages is None:
            self._passages = _matrix(chunks)
        return [self._best(query, k) for query in queries]

    def _best(self, query: Vector | None, k: int) -> list[int]:
        assert self._passages is not None, "search makes it first"
        if query is None or not self._passages.shape[1]:
            return list(range(k))
        # A sum may differ in its last digits from row to row of equal ones: rounded, these are equal again.
        order = (-np.round(self._passages @ query, 6)).argsort(kind="stable")
        return sorted(int(place) for place in order[:k])

    def _text(self, prefix: str, text: str) -> str:
        cut = text[: self._config.max_characters]
        return prefix + cut if cut.strip() else ""


def _matrix(vectors: Sequence[Vector | None]) -> NDArray[np.float32]:
    """Zeros stand for the vectors that are None."""
    width = max((len(vector) for vector in vectors if vector is not None), default=0)
    return np.stack([np.zeros(width, np.float32) if vector is None else vector for vector in vectors])
