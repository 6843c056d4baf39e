"""Each text is embedded once: its vector comes from the ledger where it is there, and equal texts share one call."""

import asyncio
import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from longreward.errors import JudgeProtocolError, RequestRefused
from longreward.judge.ledger.schema import VECTORS
from longreward.judge.ledger.store import Store
from longreward.retrieval.config import RetrieverConfig
from longreward.retrieval.embedders import Embedder

Vector = NDArray[np.float32]


class VectorLedger(Store):
    """The vectors at `path`, in the file that keeps a judge's answers too; None keeps them in memory."""

    def __init__(self, path: Path | None, *, busy_timeout_s: float = 60.0) -> None:
        super().__init__(path, busy_timeout_s=busy_timeout_s)

    def find(self, keys: Iterable[bytes]) -> dict[bytes, Vector]:
        """Those that are there; damaged ones are put aside and not among them."""
        asked, found = list(keys), {}
        for start in range(0, len(asked), _AT_ONCE):
            some = asked[start : start + _AT_ONCE]
            for key, vector, *_ in self._select(VECTORS, some):
                found[key] = unpack_vector(vector)
        return found

    def put(self, vectors: Mapping[bytes, bytes], *, model: str, revision: str) -> None:
        """Keeps all of them before it returns."""
        now = time.time()
        self._insert(VECTORS, [(key, vector, model, revision, now) for key, vector in vectors.items()])

    def count(self) -> int:
        """How many there are, of all models."""
        return int(self._query("SELECT count(*) FROM vectors")[0][0])


def pack_vector(vector: Vector) -> bytes:
    """A vector of length 1 as it is kept."""
    return vector.astype("<f2").tobytes()


def unpack_vector(vector: bytes) -> Vector:
    """The same whether it was kept long ago or just now, so that a resumed run ranks alike."""
    return np.frombuffer(vector, dtype="<f2").astype(np.float32)


_AT_ONCE = 500  # SQLite takes 999 values a statement in old builds


class CachedEmbedder:
    """The vectors of texts, from the ledger or the model; close it to end calls under way."""

    def __init__(self, embedder: Embedder, config: RetrieverConfig, ledger: VectorLedger) -> None:
        self._embedder = embedder
        self._config = config
        self._ledger = ledger
        self._settings = json.dumps(
            [config.kind, config.model, config.revision, config.dimensions, config.extra_body], sort_keys=True
        )
        self._running: dict[bytes, asyncio.Task[dict[bytes, Vector]]] = {}
        self._refused: dict[bytes, RequestRefused] = {}
        self._length = config.dimensions
        self.figures = dict.fromkeys(("calls", "texts", "ledger_hits", "shared"), 0)

    @property
    def where(self) -> str:
        """The model and its location, for messages."""
        return self._embedder.where

    async def of(self, texts: Sequence[str]) -> list[Vector | None]:
        """For each text its vector of length 1 (of zeros where the model gives zeros); None for a blank text.

        Raises AnswerRefused where the model declines one of them, after all others are embedded and kept; else what
        the embedder raises, and JudgeProtocolError where vectors are no vectors of one length.
        """
        keys = [self._key(text) if text.strip() else None for text in texts]
        wanted = {key: text for key, text in zip(keys, texts, strict=True) if key is not None}
        found = self._ledger.find(wanted)
        self.figures["ledger_hits"] += len(found)
        self._check_lengths(found.values(), "the ledger holds")
        missing = [key for key in wanted if key not in found and key not in self._refused]
        self.figures["shared"] += sum(key in self._running for key in missing)
        self._start({key: wanted[key] for key in missing if key not in self._running})
        tasks = {self._running[key] for key in missing}
        for embedded in await asyncio.gather(*(asyncio.shield(task) for task in tasks)):
            found |= embedded
        for key in wanted:
            if key in self._refused:
                raise RequestRefused(str(self._refused[key]))
        return [None if key is None else found[key] for key in keys]

    async def close(self) -> None:
        """Ends calls under way and lets go of the model and the ledger."""
        tasks = set(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._embedder.close()
        self._ledger.close()

    def _key(self, text: str) -> bytes:
        return hashlib.sha256(f"{self._settings}\n{text}".encode("utf-8", "surrogatepass")).digest()

    def _start(self, texts: Mapping[bytes, str]) -> None:
        """A task a batch, which goes on when who waits for it is cancelled: its vectors are wanted anyway."""
        for batch in self._batches(texts):
            task = asyncio.create_task(self._embed(batch))
            self._running |= dict.fromkeys(batch, task)
            task.add_done_callback(partial(self._forget, tuple(batch)))

    def _forget(self, keys: tuple[bytes, ...], task: "asyncio.Task[dict[bytes, Vector]]") -> None:
        for key in keys:
            del self._running[key]
        if not task.cancelled():
            task.exception()  # one that nobody waited for any more is no news

    def _batches(self, texts: Mapping[bytes, str]) -> Iterator[dict[bytes, str]]:
        batch: dict[bytes, str] = {}
        characters = 0
        for key, text in texts.items():
            full = len(batch) == self._config.batch_size or characters + len(text) > self._config.batch_characters
            if batch and full:
                yield batch
                batch, characters = {}, 0
            batch[key] = text
            characters += len(text)
        if batch:
            yield batch

    async def _embed(self, batch: dict[bytes, str]) -> dict[bytes, Vector]:
        """Asked, checked and kept without a pause in between. A batch that is declined is halved to find the text."""
        self.figures["calls"] += 1
        try:
            rows = await self._embedder.embed(list(batch.values()))
        except RequestRefused as refusal:
            items = list(batch.items())
            if len(items) == 1:
                [(key, text)] = items
                self._refused[key] = RequestRefused(f"{refusal} (the text: {text[:60]!r}, {len(text)} characters)")
                return {}
            half = len(items) // 2
            return await self._embed(dict(items[:half])) | await self._embed(dict(items[half:]))
        self.figures["texts"] += len(batch)
        self._check_lengths(rows, f"the {self._embedder.where} answered with")
        kept = dict(zip(batch, map(pack_vector, self._of_length_one(rows)), strict=True))
        self._ledger.put(kept, model=self._config.model or "", revision=self._config.revision)
        return {key: unpack_vector(vector) for key, vector in kept.items()}

    def _of_length_one(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        wide = rows.astype(np.float64)
        if not np.isfinite(wide).all():
            raise JudgeProtocolError(
                f"the {self._embedder.where} answered with numbers that are none (NaN, null or infinite); "
                "half precision does that to some models: serve it in float32 or bfloat16"
            )
        sizes = np.linalg.norm(wide, axis=1, keepdims=True)
        unit: NDArray[np.float32] = (wide / np.where(sizes == 0, 1, sizes)).astype(np.float32)
        return unit

    def _check_lengths(self, vectors: Iterable[Vector], whose: str) -> None:
        for vector in vectors:
            self._length = self._length or len(vector)
            if len(vector) != self._length:
                raise JudgeProtocolError(
                    f"{whose} vectors of {len(vector)} numbers, where those before or score.retriever.dimensions have "
                    f"{self._length}; is another model behind the name {self._config.model!r}? Then change "
                    "score.retriever.revision"
                )
