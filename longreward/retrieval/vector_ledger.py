"""Vectors in the ledger's file, one row a text.

vectors
  key     sha256 of (kind, model, revision, dimensions, extra fields, text with its prefix)
  vector  of length 1, little-endian float16
"""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from longreward.judge.ledger.store import Store
from longreward.judge.ledger.tables import VECTORS

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
            for key, vector, *_ in self._find(VECTORS, some):
                found[key] = unpacked(vector)
        return found

    def put(self, vectors: Mapping[bytes, bytes], *, model: str, revision: str) -> None:
        """Keeps all of them before it returns."""
        now = time.time()
        self._insert(VECTORS, [(key, vector, model, revision, now) for key, vector in vectors.items()])

    def count(self) -> int:
        """How many there are, of all models."""
        return int(self._rows("SELECT count(*) FROM vectors")[0][0])


def packed(vector: Vector) -> bytes:
    """A vector of length 1 as it is kept."""
    return vector.astype("<f2").tobytes()


def unpacked(vector: bytes) -> Vector:
    """The same whether it was kept long ago or just now, so that a resumed run ranks alike."""
    return np.frombuffer(vector, dtype="<f2").astype(np.float32)


_AT_ONCE = 500  # SQLite takes 999 values a statement in old builds
