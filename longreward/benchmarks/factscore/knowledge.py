"""Where a fact is looked up: the passages of one case's context that share most with it."""

import asyncio

from longreward.retrieval import Bm25Retriever
from longreward.retrieval.chunking import split_text
from longreward.retrieval.retriever import Index
from longreward.utils.token_spans import SimpleTokenizer


class Knowledge:
    """One context in passages of up to `size` tokens, of which `k` are shown, in their order; indexed at first use."""

    def __init__(self, context: str, *, size: int, k: int) -> None:
        self._context, self._size, self._k = context, size, k
        self._passages: list[str] = []
        self._index: Index | None = None
        self._turn = asyncio.Lock()

    async def about(self, facts: list[str]) -> list[str]:
        """For each fact its passages, numbered and with a blank line between."""
        async with self._turn:  # several sentences ask at once, and the first indexes
            if self._index is None:
                self._index = await asyncio.to_thread(self._indexed)
        places = await self._index.search(facts, self._k)
        return ["\n\n".join(self._passage(n, place) for n, place in enumerate(each, start=1)) for each in places]

    def _passage(self, number: int, place: int) -> str:
        return f"Passage {number}:\n{self._passages[place].strip()}"

    def _indexed(self) -> Index:
        cut = split_text(self._context, self._size, SimpleTokenizer())
        self._passages = [self._context[each.start : each.end] for each in cut]
        return Bm25Retriever().index(self._passages)
