"""Finding the chunks of a document that come nearest to a statement: by shared words, or by embeddings."""

from longreward.retrieval.bm25 import Bm25Retriever
from longreward.retrieval.config import RetrieverConfig, check_key
from longreward.retrieval.retriever import Index, Retriever, RetrieverProbe, open_retriever, probe

__all__ = [
    "Bm25Retriever",
    "Index",
    "Retriever",
    "RetrieverConfig",
    "RetrieverProbe",
    "check_key",
    "open_retriever",
    "probe",
]
