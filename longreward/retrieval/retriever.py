"""What a retriever is: something that finds the chunks of a document that come nearest to a statement."""

from collections.abc import Sequence
from typing import Protocol


class Index(Protocol):
    """One document's chunks, ready to be searched."""

    async def search(self, queries: Sequence[str], k: int) -> list[list[int]]:
        """For each query the numbers of the best `k` chunks (all, where there are fewer), in document order."""


class Retriever(Protocol):
    """A way to rank chunks."""

    def index(self, chunks: Sequence[str]) -> Index:
        """Takes in one document; done once, however many statements are looked up in it."""

    def settings(self) -> dict[str, str | int]:
        """What decides about the ranking, to be kept with the scores that come of it."""

    def figures(self) -> dict[str, float]:
        """Counts since it was opened, as metrics; empty where there is nothing to count."""

    async def close(self) -> None:
        """Lets go of connections and files."""
