"""What an embedding model is: something that turns texts into vectors, on a server or in this process."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from longreward.retrieval.config import RetrieverConfig

Vectors = NDArray[np.float32]  # a row a text


class Embedder(Protocol):
    """A model that is asked in batches; its callers keep to the batch sizes of the settings."""

    @property
    def where(self) -> str:
        """What and where it is, for messages; holds no key."""

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """A row of numbers for each text, in their order.

        Raises AnswerRefused where it declines one of the texts (too long, a content filter), JudgeUnavailable where
        asking later may help, else JudgeRefused or JudgeProtocolError.
        """

    async def close(self) -> None:
        """Lets go of connections and threads."""


def open_embedder(config: RetrieverConfig) -> Embedder:
    """The model that `config` describes; raises ConfigError where its key, package or folder is missing."""
    if config.kind == "http":
        from longreward.retrieval.http_embedder import HttpEmbedder

        return HttpEmbedder(config)
    from longreward.retrieval.local_embedder import LocalEmbedder

    return LocalEmbedder(config)
