"""A document as the judge sees it: small chunks to retrieve evidence from, large ones to extract information from."""

from collections.abc import Sequence
from typing import NamedTuple

from longreward.records import Evidence
from longreward.retrieval import Index, Retriever
from longreward.retrieval.chunking import Chunk, split_tokens
from longreward.reward.config import ScoreConfig
from longreward.utils.concurrency import SharedResult
from longreward.utils.token_spans import TextTokenizer


class Document:
    """A context that is chunked once and indexed once, in a thread, on first use.

    A document of white space only has no chunks, so no judge call is made about it.
    """

    def __init__(self, text: str, config: ScoreConfig, tokenizer: TextTokenizer, retriever: Retriever) -> None:
        self.text = text
        self._config, self._tokenizer, self._retriever = config, tokenizer, retriever
        self._chunks = SharedResult(self._split)
        self._index = SharedResult(self._build_index)

    async def extraction_chunks(self) -> tuple[Chunk, ...]:
        """Return the chunks from which information is extracted (`extraction_chunk_tokens` each)."""
        return (await self._chunks.get()).extraction

    async def evidence(self, statements: Sequence[str], k: int, query: str = "") -> list[tuple[Evidence, ...]]:
        """Return the `k` best chunks for each statement about `query`, in document order; none for an empty document.

        Raises the JudgeError family if an embedding model fails, RequestRefused if it declines a statement.
        """
        chunks = (await self._chunks.get()).evidence
        index = await self._index.get()
        results = await index.search(statements, k, query)
        return [tuple(self._evidence(chunks[position]) for position in positions) for positions in results]

    def _split(self) -> "_Chunks":
        # BM25 and tokenizers would return one empty chunk, about which the judge cannot say anything.
        if not self.text.strip():
            return _Chunks((), ())
        spans = self._tokenizer.spans(self.text)
        return _Chunks(
            extraction=tuple(split_tokens(len(self.text), spans, self._config.extraction_chunk_tokens)),
            evidence=tuple(split_tokens(len(self.text), spans, self._config.evidence_chunk_tokens)),
        )

    def _build_index(self) -> Index:
        chunks = self._chunks.result().evidence
        return self._retriever.index([self.text[chunk.start : chunk.end] for chunk in chunks])

    def _evidence(self, chunk: Chunk) -> Evidence:
        return Evidence(start=chunk.start, end=chunk.end, text=self.text[chunk.start : chunk.end])


class _Chunks(NamedTuple):
    extraction: tuple[Chunk, ...]
    evidence: tuple[Chunk, ...]
