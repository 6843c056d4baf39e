"""A document as the judge will see it: small chunks to look statements up in, large parts to extract from."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from longreward.records import Evidence
from longreward.retrieval import Index, Retriever
from longreward.retrieval.chunking import Chunk, split_tokens
from longreward.reward.config import ScoreConfig
from longreward.utils.concurrency import SharedResult
from longreward.utils.token_spans import TextTokenizer


class Document:
    """A context with its parts and chunks. It is cut once and indexed once, in a thread, when that is first needed.

    A text without any character but white space has neither parts nor chunks, so that no judge is asked about it.
    """

    def __init__(self, text: str, config: ScoreConfig, tokenizer: TextTokenizer, retriever: Retriever) -> None:
        self.text = text
        self._config, self._tokenizer, self._retriever = config, tokenizer, retriever
        self._slices = SharedResult(self._cut)
        self._indexed = SharedResult(self._index)

    async def parts(self) -> tuple[Chunk, ...]:
        """The slices that relevant information is extracted from."""
        return (await self._slices.get()).parts

    async def evidence(self, statements: Sequence[str], k: int) -> list[tuple[Evidence, ...]]:
        """For each statement the `k` nearest chunks in document order; none in an empty document.

        Raises the JudgeError family where an embedding model fails; AnswerRefused where it declines one text.
        """
        chunks = (await self._slices.get()).chunks
        index = await self._indexed.get()
        found = await index.search(statements, k)
        return [tuple(self._show(chunks[n]) for n in positions) for positions in found]

    def _cut(self) -> "_Slices":
        if not self.text.strip():
            return _Slices((), ())
        spans = self._tokenizer.spans(self.text)
        return _Slices(
            parts=tuple(split_tokens(len(self.text), spans, self._config.extraction_chunk_tokens)),
            chunks=tuple(split_tokens(len(self.text), spans, self._config.evidence_chunk_tokens)),
        )

    def _index(self) -> Index:
        chunks = self._slices.result().chunks
        return self._retriever.index([self.text[chunk.start : chunk.end] for chunk in chunks])

    def _show(self, chunk: Chunk) -> Evidence:
        return Evidence(start=chunk.start, end=chunk.end, text=self.text[chunk.start : chunk.end])


class _Slices(NamedTuple):
    parts: tuple[Chunk, ...]
    chunks: tuple[Chunk, ...]


class DocumentCache:
    """Documents by their text, the last few of them: prompts about one document share its chunks and its index."""

    def __init__(self, config: ScoreConfig, tokenizer: TextTokenizer, retriever: Retriever, *, keep: int) -> None:
        self._config = config
        self._tokenizer = tokenizer
        self._retriever = retriever
        self._keep = keep
        self._documents: OrderedDict[str, Document] = OrderedDict()

    def open(self, text: str) -> Document:
        """The document with this text."""
        document = self._documents.get(text)
        if document is None:
            document = self._documents[text] = Document(text, self._config, self._tokenizer, self._retriever)
        self._documents.move_to_end(text)
        while len(self._documents) > self._keep:
            self._documents.popitem(last=False)
        return document
