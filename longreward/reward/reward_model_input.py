"""The input of a reward model: document, query and response as token ids that fit its window.

    chat template     user "{document}\\n\\n{query}", assistant "{response}"
    without one       the three, joined by blank lines

Query and response are never cut. Of a document that exceeds the window remain

    ends        its first and last halves
    extracts    the chunks that share most terms with query and response (BM25), in document order

Special tokens in any of the three are read as ordinary text.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from longreward.errors import PolicyError
from longreward.models.chat_encoding import ChatEncoder
from longreward.retrieval.bm25 import Bm25Index
from longreward.retrieval.chunking import split_text
from longreward.retrieval.config import RetrieverConfig
from longreward.utils.token_spans import SimpleTokenizer, keep_ends

DocumentPart = Literal["ends", "extracts"]
# A window holds at least about ten chunks; 128 tokens are those of the judge's evidence (paper, section 3.1).
CHUNKS_PER_WINDOW, MAX_CHUNK_TOKENS, MIN_CHUNK_TOKENS = 10, 128, 8


@dataclass(frozen=True)
class InputEncoder:
    """Encodes inputs of at most `window` tokens; `part` is what remains of a longer document."""

    chat: ChatEncoder
    window: int
    part: DocumentPart = "ends"

    def encode(self, *, context: str, query: str, response: str) -> tuple[list[int] | None, bool]:
        """Return the token ids, None if query and response alone exceed the window; and whether the document was cut.

        Raises PolicyError if the chat template rejects the messages, or the tokenizer gives no offsets for `ends`.
        """
        ids = self._encode(context, query, response)
        if len(ids) <= self.window:
            return ids, False
        cut = self._encode_extracts if self.part == "extracts" else self._encode_ends
        ids = cut(context, query, response, len(ids))
        return (ids if len(ids) <= self.window else None), True

    def _encode(self, context: str, query: str, response: str) -> list[int]:
        prompt = f"{context}\n\n{query}" if context else query
        if not self.chat.tokenizer.chat_template:
            return self.chat.encode_text(f"{prompt}\n\n{response}", add_special_tokens=True)
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        return self.chat.encode_messages(messages, add_generation_prompt=False)

    def _encode_ends(self, context: str, query: str, response: str, tokens: int) -> list[int]:
        tokenizer = self.chat.tokenizer
        if not tokenizer.is_fast:
            raise PolicyError(
                f"{tokenizer.name_or_path}: its tokenizer is not a fast one and gives no token offsets, so that no "
                "document can be shortened to the window; choose another reward model"
            )
        spans = tokenizer(context, add_special_tokens=False, return_offsets_mapping=True, verbose=False)[
            "offset_mapping"
        ]
        kept = len(spans)
        ids: list[int] = []
        # Repeated, because the tokens of the parts may merge or split where the document is cut.
        while tokens > self.window and kept > 0:
            kept = max(0, kept - (tokens - self.window))
            ids = self._encode(keep_ends(context, spans, kept), query, response)
            tokens = len(ids)
        return ids

    def _encode_extracts(self, context: str, query: str, response: str, tokens: int) -> list[int]:
        ids = self._encode("", query, response)
        if len(ids) > self.window:
            return ids
        document = _index(context, max(MIN_CHUNK_TOKENS, min(MAX_CHUNK_TOKENS, self.window // CHUNKS_PER_WINDOW)))
        # The best chunks one by one, as long as they fit. Each is counted on its own, so the sum is only an estimate.
        selected: list[int] = []
        left = self.window - len(ids)
        for number in document.rank(f"{query}\n{response}"):
            left -= len(self.chat.encode_text(document.chunks[number])) + 1
            if left < 0 and selected:
                break
            selected.append(number)
        while selected:
            extracts = "\n".join(document.chunks[number] for number in sorted(selected))
            with_extracts = self._encode(extracts, query, response)
            if len(with_extracts) <= self.window:
                return with_extracts
            selected.pop()
        return ids


@dataclass(frozen=True)
class _IndexedDocument:
    chunks: tuple[str, ...]
    index: Bm25Index

    def rank(self, text: str) -> list[int]:
        """Return the numbers of all chunks: those that share terms with the text, best first, then the others."""
        [ranking] = self.index.rank_statements([text])
        ranked = set(ranking)
        return ranking + [number for number in range(len(self.chunks)) if number not in ranked]


@lru_cache(maxsize=2)  # the responses to one prompt come one after another
def _index(context: str, chunk_tokens: int) -> _IndexedDocument:
    chunks = tuple(context[c.start : c.end].strip() for c in split_text(context, chunk_tokens, SimpleTokenizer()))
    return _IndexedDocument(chunks, Bm25Index(RetrieverConfig(), chunks))
