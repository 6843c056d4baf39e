"""A document as the judge will see it: small chunks to look statements up in, large parts to extract from."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from longreward.chunking import Chunk, cut
from longreward.records import Evidence
from longreward.retrieval import Index, Retriever
from longreward.reward.config import ScoreConfig
from longreward.tokenizing import TextTokenizer


@dataclass(frozen=True)
class Document:
    """A context with its chunks; each chunk is indexed once, at the first search.

    A text without any character but white space has neither parts nor chunks, so that no judge is asked about it.
    """

    text: str
    parts: tuple[Chunk, ...]
    chunks: tuple[Chunk, ...]
    retriever: Retriever

    async def evidence(self, statements: Sequence[str], k: int) -> list[tuple[Evidence, ...]]:
        """For each statement the `k` nearest chunks in document order; none in an empty document.

        Raises the JudgeError family where an embedding model fails; AnswerRefused where it declines one text.
        """
        found = await self._index.search(statements, k)
        return [tuple(self._show(self.chunks[n]) for n in places) for places in found]

    @cached_property
    def _index(self) -> Index:
        return self.retriever.index([self.text[chunk.start : chunk.end] for chunk in self.chunks])

    def _show(self, chunk: Chunk) -> Evidence:
        return Evidence(start=chunk.start, end=chunk.end, text=self.text[chunk.start : chunk.end])


class Library:
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
            document = self._documents[text] = self._cut(text)
        self._documents.move_to_end(text)
        while len(self._documents) > self._keep:
            self._documents.popitem(last=False)
        return document

    def _cut(self, text: str) -> Document:
        if not text.strip():
            return Document(text, parts=(), chunks=(), retriever=self._retriever)
        spans = self._tokenizer.spans(text)
        return Document(
            text=text,
            parts=tuple(cut(len(text), spans, self._config.extraction_chunk_tokens)),
            chunks=tuple(cut(len(text), spans, self._config.evidence_chunk_tokens)),
            retriever=self._retriever,
        )
