"""Rankings of chunks: select the best chunks of a ranking, and fuse several rankings into one."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence


class RankingIndex(ABC):
    """The index of one document: an Index whose subclasses rank the chunks.

    Args:
        size: number of chunks.
    """

    def __init__(self, size: int) -> None:
        self._size = size

    async def search(self, statements: Sequence[str], k: int, query: str = "") -> list[list[int]]:
        """Return, for each statement, the numbers of the best `k` chunks in document order."""
        if k >= self._size:
            return [list(range(self._size)) for _ in statements]
        return [select_chunks(ranking, k) for ranking in await self.rank(statements, query)]

    @abstractmethod
    async def rank(self, statements: Sequence[str], query: str = "") -> list[list[int]]:
        """Return, for each statement, the numbers of the chunks that match it, best first."""


def select_chunks(ranking: Sequence[int], k: int) -> list[int]:
    """Return the first `k` chunks of a ranking in document order.

    If the ranking is shorter, the first chunks of the document that it does not contain complete the list: the judge
    always sees `k` chunks.
    """
    best = list(ranking[:k])
    ranked = set(best)
    number = 0
    while len(best) < k:
        if number not in ranked:
            best.append(number)
        number += 1
    return sorted(best)


def fuse_rankings(rankings: Sequence[Sequence[int]], constant: int) -> list[int]:
    """Fuse rankings of the same chunks by reciprocal rank fusion.

    Source: Cormack, Clarke and Büttcher (2009), "Reciprocal rank fusion outperforms Condorcet and individual rank
    learning methods". The score of a chunk is the sum of 1 / (constant + rank) over the rankings that contain it; ranks
    start at 1. Scores of the rankers are not used, so that their scales do not matter. Chunks with equal scores are
    ordered by position.

    >>> fuse_rankings([[2, 0, 1], [1, 2]], constant=60)  # 2: 1/61 + 1/62, 1: 1/63 + 1/61, 0: 1/62
    [2, 1, 0]
    """
    scores: dict[int, float] = defaultdict(float)
    for ranking in rankings:
        for rank, chunk in enumerate(ranking, start=1):
            scores[chunk] += 1 / (constant + rank)
    return sorted(scores, key=lambda chunk: (-scores[chunk], chunk))
