"""Vectors are stored in a table of the ledger."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from longreward.errors import StateError
from longreward.judge.ledger import Ledger
from longreward.retrieval.embedding_cache import VectorLedger


def half(*numbers: float) -> bytes:
    return np.array(numbers, dtype="<f2").tobytes()


def test_vectors_returned_as_stored_and_first_of_key_kept(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "ledger.sqlite"
    with VectorLedger(path) as vectors:
        vectors.put({b"a": half(1, 0), b"b": half(0.5, -0.25)}, model="m", revision="")
        vectors.put({b"a": half(0, 1)}, model="m", revision="")
    with VectorLedger(path) as vectors:
        found = vectors.find([b"a", b"b", b"c"])
        assert {key: vector.tolist() for key, vector in found.items()} == {b"a": [1, 0], b"b": [0.5, -0.25]}
        assert vectors.count() == 2


def test_more_keys_than_one_query_accepts() -> None:
    vectors = VectorLedger(None)
    keys = [str(n).encode() for n in range(1234)]
    vectors.put({key: half(1) for key in keys}, model="m", revision="")
    assert len(vectors.find([*keys, b"absent"])) == 1234


@pytest.mark.parametrize("first", [Ledger, VectorLedger])
def test_ledger_and_vectors_share_file(tmp_path: Path, first: type) -> None:
    path = tmp_path / "ledger.sqlite"
    first(path).close()
    with Ledger(path) as ledger, VectorLedger(path) as vectors:
        assert ledger.find("a") == []
        assert vectors.count() == 0
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)


def test_put_commits_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with VectorLedger(path) as vectors:
        with pytest.raises(StateError, match="NOT NULL"):
            vectors.put({b"a": half(1), b"b": None}, model="m", revision="")  # type: ignore[dict-item]
        assert vectors.count() == 0
        vectors.put({b"a": half(1)}, model="m", revision="")
        assert vectors.count() == 1


WRITER = """
import sys
from pathlib import Path
from longreward.retrieval.embedding_cache import VectorLedger
vectors = VectorLedger(Path(sys.argv[1]))
for n in range(200):
    vectors.put({f"{sys.argv[2]}{n}".encode(): b"\\0\\0"}, model="m", revision="")
"""


def test_two_processes_write_at_same_time(tmp_path: Path) -> None:
    path = str(tmp_path / "ledger.sqlite")
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, name]) for name in ("a", "b")]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    with VectorLedger(Path(path)) as vectors:
        assert vectors.count() == 400
