"""The retriever protocol, and the functions that open and probe the retriever that the settings describe.

retriever = open_retriever(RetrieverConfig(kind="http", base_url="http://localhost:8080/v1", model="bge-m3"),
                           ledger=Path(".longreward/ledger.sqlite"))
index = retriever.index(["The lamp was lit.", "A keeper kept bees."])
await index.search(["Bees were kept."], k=1)  # [[1]]
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from longreward.errors import ConfigError, JudgeError
from longreward.retrieval.bm25 import Bm25Retriever
from longreward.retrieval.config import RetrieverConfig
from longreward.utils.endpoints import ProbeResult


class Index(Protocol):
    """The indexed chunks of one document."""

    async def search(self, statements: Sequence[str], k: int, query: str = "") -> list[list[int]]:
        """Return, for each statement, the numbers of the best `k` chunks (all, if there are fewer) in document order.

        `query` is the user's query, which all statements answer; a retriever may use it to resolve what they leave out.
        """


class Retriever(Protocol):
    """A method of ranking chunks by their relevance to a statement."""

    def index(self, chunks: Sequence[str]) -> Index:
        """Index one document; call it once per document, however many statements are searched."""

    def settings(self) -> dict[str, str | int | float]:
        """Return the settings that determine the ranking; they are stored with the scores."""

    def metrics(self) -> dict[str, float]:
        """Return counts since the retriever was opened; may be empty."""

    async def close(self) -> None:
        """Release connections and files."""


def open_retriever(config: RetrieverConfig, *, ledger: Path | None) -> Retriever:
    """Open the configured retriever; the caller closes it.

    Args:
        config: the section `score.retriever`.
        ledger: the SQLite file that caches embeddings; None caches them in memory.

    Raises:
        ConfigError: an API key, a package or the folder of a local model is missing.
        StateError: the ledger cannot be opened.
    """
    if config.kind == "bm25":
        return Bm25Retriever(config)
    from longreward.retrieval.embedders import open_embedder
    from longreward.retrieval.embedding_cache import CachedEmbedder, VectorLedger
    from longreward.retrieval.embedding_retriever import EmbeddingRetriever
    from longreward.retrieval.hybrid_retriever import HybridRetriever

    embeddings = EmbeddingRetriever(config, CachedEmbedder(open_embedder(config), config, VectorLedger(ledger)))
    return HybridRetriever(config, Bm25Retriever(config), embeddings) if config.kind == "hybrid" else embeddings


async def probe(config: RetrieverConfig, *, timeout_s: float = 60.0) -> ProbeResult:
    """Embed one short text without the cache; report errors of the model or its server instead of raising them.

    A call gets at most `timeout_s` (or `config.timeout_s` if that is shorter) and one retry.
    """
    if config.embedding_kind is None:
        return ProbeResult(True, "bm25: needs no server and no model")
    from longreward.retrieval.embedders import open_embedder
    from longreward.retrieval.embedding_cache import CachedEmbedder, VectorLedger

    limited = config.model_copy(
        update={"timeout_s": min(config.timeout_s, timeout_s), "max_retries": min(config.max_retries, 1)}
    )
    started = time.monotonic()
    try:
        embedder = CachedEmbedder(open_embedder(limited), limited, VectorLedger(None))
        try:
            (vector,) = await embedder.embed([f"{config.query_prefix}Which river flows through Keld?"])
        finally:
            await embedder.close()
    except (ConfigError, JudgeError) as error:
        return ProbeResult(False, str(error))
    seconds = time.monotonic() - started
    dimensions = 0 if vector is None else len(vector)
    return ProbeResult(True, f"{embedder.description}: {dimensions} dimensions in {seconds:.1f} s")
