"""Embed each text once: vectors are stored in the ledger, and concurrent requests for one text share a call.

The table `vectors` of the ledger has one row per text. Its key is the SHA-256 of (kind of the embeddings, model,
revision, dimensions, extra fields, text with its prefix); its vector has length 1 and is stored in little-endian
float16.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from longreward.errors import JudgeProtocolError, RequestRefused
from longreward.judge.ledger.schema import VECTORS
from longreward.judge.ledger.store import Store
from longreward.retrieval.config import RetrieverConfig
from longreward.retrieval.embedders import Embedder

Vector = NDArray[np.float32]  # (dimensions,)

KEYS_PER_QUERY = 500  # SQLite before 3.32 accepts 999 parameters in a statement


class VectorLedger(Store):
    """The vectors in the ledger at `path`; None keeps them in memory."""

    def find(self, keys: Iterable[bytes]) -> dict[bytes, Vector]:
        """Return the stored vectors of these keys; damaged ones are deleted and left out."""
        all_keys, vectors = list(keys), {}
        for start in range(0, len(all_keys), KEYS_PER_QUERY):
            for key, vector, *_ in self._select(VECTORS, all_keys[start : start + KEYS_PER_QUERY]):
                vectors[key] = unpack_vector(vector)
        return vectors

    def put(self, vectors: Mapping[bytes, bytes], *, model: str, revision: str) -> None:
        """Commit packed vectors by key in one transaction."""
        now = time.time()
        self._insert(VECTORS, [(key, vector, model, revision, now) for key, vector in vectors.items()])

    def count(self) -> int:
        """Return the number of vectors of all models."""
        return int(self._query("SELECT count(*) FROM vectors")[0][0])


def pack_vector(vector: Vector) -> bytes:
    """Return the stored form of a vector of length 1."""
    return vector.astype("<f2").tobytes()


def unpack_vector(vector: bytes) -> Vector:
    """Return a stored vector.

    New vectors are packed and unpacked too, so that a resumed run, which reads them from the ledger, ranks alike.
    """
    return np.frombuffer(vector, dtype="<f2").astype(np.float32)


class CachedEmbedder:
    """Embeds texts with a cache in the ledger; closes the embedder and the ledger."""

    def __init__(self, embedder: Embedder, config: RetrieverConfig, ledger: VectorLedger) -> None:
        self._embedder = embedder
        self._config = config
        self._ledger = ledger
        self._key_prefix = json.dumps(
            [config.embedding_kind, config.model, config.revision, config.dimensions, config.extra_body], sort_keys=True
        )
        self._running: dict[bytes, asyncio.Task[dict[bytes, Vector]]] = {}
        self._refused: dict[bytes, RequestRefused] = {}
        self._dimensions = config.dimensions
        self.counts = dict.fromkeys(("calls", "texts", "ledger_hits", "shared"), 0)

    @property
    def description(self) -> str:
        """The model and its location, for messages."""
        return self._embedder.description

    async def embed(self, texts: Sequence[str]) -> list[Vector | None]:
        """Return a vector of length 1 for each text (zeros if the model returns zeros), and None for a blank text.

        Raises:
            RequestRefused: the model declines one of the texts; the others are embedded and stored.
            JudgeProtocolError: the model returns no valid vectors, or vectors of different lengths.
            JudgeError: any other error of the embedder.
        """
        contents = [f"{self._key_prefix}\n{text}".encode("utf-8", "surrogatepass") for text in texts]
        keys = [
            hashlib.sha256(content).digest() if text.strip() else None
            for text, content in zip(texts, contents, strict=True)
        ]
        text_by_key = {key: text for key, text in zip(keys, texts, strict=True) if key is not None}
        vectors = self._ledger.find(text_by_key)
        self.counts["ledger_hits"] += len(vectors)
        self._check_dimensions(vectors.values(), "the ledger contains")
        missing = [key for key in text_by_key if key not in vectors and key not in self._refused]
        self.counts["shared"] += sum(key in self._running for key in missing)
        for batch in self._batches({key: text_by_key[key] for key in missing if key not in self._running}):
            # The task continues when this caller is cancelled, because others may wait for it.
            task = asyncio.create_task(self._embed_batch(batch))
            self._running |= dict.fromkeys(batch, task)
            task.add_done_callback(partial(self._remove_task, tuple(batch)))
        tasks = {self._running[key] for key in missing}
        for embedded in await asyncio.gather(*(asyncio.shield(task) for task in tasks)):
            vectors |= embedded
        for key in text_by_key:
            if key in self._refused:
                raise RequestRefused(str(self._refused[key]))
        return [None if key is None else vectors[key] for key in keys]

    async def close(self) -> None:
        """Cancel running calls, and close the embedder and the ledger."""
        tasks = set(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._embedder.close()
        self._ledger.close()

    def _remove_task(self, keys: tuple[bytes, ...], task: "asyncio.Task[dict[bytes, Vector]]") -> None:
        for key in keys:
            del self._running[key]
        if not task.cancelled():
            task.exception()  # mark as retrieved: a cancelled caller does not await it any more

    def _batches(self, texts: Mapping[bytes, str]) -> Iterator[dict[bytes, str]]:
        batch: dict[bytes, str] = {}
        characters = 0
        for key, text in texts.items():
            is_full = len(batch) == self._config.batch_size or characters + len(text) > self._config.batch_characters
            if batch and is_full:
                yield batch
                batch, characters = {}, 0
            batch[key] = text
            characters += len(text)
        if batch:
            yield batch

    async def _embed_batch(self, batch: dict[bytes, str]) -> dict[bytes, Vector]:
        """Embed, check and store a batch; split a refused batch in halves until the refused text is found."""
        self.counts["calls"] += 1
        try:
            rows = await self._embedder.embed(list(batch.values()))
        except RequestRefused as error:
            items = list(batch.items())
            if len(items) == 1:
                [(key, text)] = items
                self._refused[key] = RequestRefused(f"{error} (the text: {text[:60]!r}, {len(text)} characters)")
                return {}
            half = len(items) // 2
            return await self._embed_batch(dict(items[:half])) | await self._embed_batch(dict(items[half:]))
        # No await from here on: a cancellation must not lose vectors that are paid for.
        self.counts["texts"] += len(batch)
        self._check_dimensions(rows, f"the {self.description} returned")
        wide = rows.astype(np.float64)
        if not np.isfinite(wide).all():
            raise JudgeProtocolError(
                f"the {self.description} returned NaN, null or infinite numbers; some models do that in half "
                "precision: serve the model in float32 or bfloat16"
            )
        norms = np.linalg.norm(wide, axis=1, keepdims=True)
        unit = (wide / np.where(norms == 0, 1, norms)).astype(np.float32)
        packed = dict(zip(batch, map(pack_vector, unit), strict=True))
        self._ledger.put(packed, model=self._config.model or "", revision=self._config.revision)
        return {key: unpack_vector(vector) for key, vector in packed.items()}

    def _check_dimensions(self, vectors: Iterable[Vector], subject: str) -> None:
        for vector in vectors:
            self._dimensions = self._dimensions or len(vector)
            if len(vector) != self._dimensions:
                raise JudgeProtocolError(
                    f"{subject} vectors of {len(vector)} dimensions, but earlier vectors or score.retriever.dimensions "
                    f"have {self._dimensions}. If the model behind the name {self._config.model!r} has changed, change "
                    "score.retriever.revision"
                )
