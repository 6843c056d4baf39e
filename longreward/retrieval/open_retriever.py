"""Makes the retriever that the settings describe.

retriever = open_retriever(RetrieverConfig(kind="http", base_url="http://localhost:8080/v1", model="bge-m3"),
                           ledger=Path(".longreward/ledger.sqlite"))
"""

from pathlib import Path

from longreward.retrieval.bm25 import Bm25Retriever
from longreward.retrieval.config import RetrieverConfig
from longreward.retrieval.retriever import Retriever


def open_retriever(config: RetrieverConfig, *, ledger: Path | None) -> Retriever:
    """The retriever, whose embeddings are kept at `ledger` (None: in memory); close it.

    Raises ConfigError where a key, a package or a model's folder is missing, StateError where the ledger cannot be
    opened.
    """
    if config.kind == "bm25":
        return Bm25Retriever()
    from longreward.retrieval.embedder import open_embedder
    from longreward.retrieval.embedding_cache import EmbeddedTexts
    from longreward.retrieval.embedding_retriever import EmbeddingRetriever
    from longreward.retrieval.vector_ledger import VectorLedger

    return EmbeddingRetriever(config, EmbeddedTexts(open_embedder(config), config, VectorLedger(ledger)))
