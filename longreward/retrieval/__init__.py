"""Retrieval: split a document into chunks, and find the chunks that are most relevant to a statement.

chunking.py             split a text by tokens
retriever.py            the protocol, and the functions that open and probe a retriever
ranking.py              fuse rankings, and select the best chunks
bm25.py, terms.py       ranking by shared words or n-grams (the default)
embedding_retriever.py  ranking by the similarity of embeddings
hybrid_retriever.py     both rankings, fused
embedding_cache.py      embeddings that are stored in the ledger
embedders.py            embedding models over HTTP and in this process
config.py               the settings
"""

from longreward.retrieval.bm25 import Bm25Retriever
from longreward.retrieval.config import RetrieverConfig, check_key
from longreward.retrieval.retriever import Index, Retriever, open_retriever, probe

__all__ = [
    "Bm25Retriever",
    "Index",
    "Retriever",
    "RetrieverConfig",
    "check_key",
    "open_retriever",
    "probe",
]
