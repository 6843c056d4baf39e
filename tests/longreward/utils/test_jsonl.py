"""Atomic writing of JSON lines."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from longreward.errors import DataError, StateError
from longreward.utils.jsonl import RecordsOnDisk, Row, write_rows

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


def test_records_on_disk_are_read_on_access(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_rows(path, ({"number": number} for number in range(7)))
    records = RecordsOnDisk(path, lambda row: int(row["number"]))
    assert (len(records), list(records), records[-1]) == (7, [0, 1, 2, 3, 4, 5, 6], 6)
    part = records[2:6]
    assert (len(part), list(part), list(part[1:3])) == (4, [2, 3, 4, 5], [3, 4])
    path.write_text(path.read_text(encoding="utf-8") + "[]", encoding="utf-8")
    with pytest.raises(DataError, match=r"rows.jsonl, line 8: a JSON list, expected an object"):
        RecordsOnDisk(path, lambda row: int(row["number"]))
