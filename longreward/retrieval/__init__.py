"""Finding the chunks of a document that come nearest to a statement: by shared words, or by embeddings."""

from longreward.retrieval.bm25 import Bm25Retriever
from longreward.retrieval.config import RetrieverConfig
from longreward.retrieval.embedder_probe import Probe, check_key, probe
from longreward.retrieval.open_retriever import open_retriever
from longreward.retrieval.retriever import Index, Retriever

__all__ = [
    "Bm25Retriever",
    "Index",
    "Probe",
    "Retriever",
    "RetrieverConfig",
    "check_key",
    "open_retriever",
    "probe",
]
