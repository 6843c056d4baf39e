"""Atomic writing of JSON lines."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from longreward.errors import StateError
from longreward.utils.jsonl import Row, write_rows

ROWS: list[Row] = [{"idx": 1}, {"idx": 2}]


def test_failed_write_keeps_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("old")

    def rows() -> Iterator[Row]:
        yield {"idx": 1}
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write_rows(path, rows())
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_partial_files_of_dead_processes_removed(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f".x.jsonl.{dead.pid}.part").write_text("half a row")
    (tmp_path / f".x.jsonl.{os.getppid()}.part").write_text("of a running process")
    assert write_rows(tmp_path / "x.jsonl", ROWS) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"x.jsonl", f".x.jsonl.{os.getppid()}.part"}
    assert (tmp_path / "x.jsonl").read_text() == '{"idx": 1}\n{"idx": 2}\n'


def test_only_regular_files_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(StateError, match="no regular file"):
            write_rows(path, ROWS)
    assert list(tmp_path.iterdir()) == [tmp_path / "pipe"]
    assert not (tmp_path / "pipe").is_file()


def test_file_in_place_of_folder_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    with pytest.raises(StateError, match=r"file/x\.jsonl cannot be written"):
        write_rows(tmp_path / "file" / "x.jsonl", ROWS)
