"""Verification lists all damage and nothing else; salvage reads what is readable in damaged and truncated files."""

import shutil
import sqlite3
from pathlib import Path

import pytest
from ledgers import execute, make_exchange, write_ledger

from longreward.errors import DataError, StateError
from longreward.judge.ledger import Ledger
from longreward.judge.ledger.reader import LedgerReader, verify_ledger
from longreward.judge.ledger.schema import EXCHANGES
from longreward.retrieval.embedding_cache import VectorLedger


def filled_ledger(path: Path, rows: int) -> Path:
    with Ledger(path) as ledger:
        ledger.put_many([make_exchange(f"q{n}", "x" * 300) for n in range(rows)])
    return path


def salvaged_ids(path: Path) -> list[str]:
    with LedgerReader(path, salvage=True) as reader:
        return [row.values[0] for row in reader.rows(EXCHANGES) if row.is_valid]


def test_rows_read_in_order_of_insertion(tmp_path: Path) -> None:
    path = filled_ledger(tmp_path / "ledger", 1300)
    with LedgerReader(path) as reader:
        rows = list(reader.rows(EXCHANGES))
    assert [row.values[0] for row in rows] == [f"q{n}" for n in range(1300)]
    assert all(row.is_valid for row in rows)
    assert salvaged_ids(path) == [f"q{n}" for n in range(1300)]


def test_intact_ledger_is_valid(tmp_path: Path) -> None:
    path = filled_ledger(tmp_path / "ledger", 1300)
    with VectorLedger(path) as vectors:
        vectors.put({b"a": b"\0\x3c"}, model="m", revision="")
    result = verify_ledger(path)
    assert (result.rows, result.damage) == ({"exchanges": 1300, "vectors": 1}, [])
    assert result.is_valid


def test_empty_file_is_empty_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    path.touch()
    assert verify_ledger(path).is_valid
    with LedgerReader(path) as reader:
        assert list(reader.rows(EXCHANGES)) == []


def test_changed_row_listed_with_number_and_key(tmp_path: Path) -> None:
    path = filled_ledger(tmp_path / "ledger", 20)
    execute(path, "UPDATE exchanges SET text = '[[10]]' WHERE question = 'q11'")
    assert verify_ledger(path).damage == ['exchanges row 12: wrong checksum; its key reads ["q11",1,0.01]']


def test_overwritten_pages_reported_and_skipped(tmp_path: Path) -> None:
    path = filled_ledger(tmp_path / "ledger", 1300)
    content = bytearray(path.read_bytes())
    content[100_000:120_000] = bytes(20_000)
    path.write_bytes(content)
    result = verify_ledger(path)
    assert any(line.startswith("structure: ") for line in result.damage)
    assert any("cannot be read" in line for line in result.damage)
    ids = salvaged_ids(path)
    assert len(ids) == len(set(ids)) <= result.rows["exchanges"]
    assert 1200 < len(ids) < 1300
    assert set(ids) >= {"q0", "q1299"}
    with pytest.raises(StateError), LedgerReader(path) as reader:
        list(reader.rows(EXCHANGES))


def test_rows_before_truncation_are_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longreward.judge.ledger.reader.MAX_MISSING_ROWS", 2000)
    path = filled_ledger(tmp_path / "ledger", 3000)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 + 100])
    with pytest.raises(StateError, match="malformed"):
        LedgerReader(path)
    result = verify_ledger(path)
    assert not result.is_valid
    ids = salvaged_ids(path)
    assert ids[:1000] == [f"q{n}" for n in range(1000)]
    assert 1200 < len(ids) == len(set(ids)) <= result.rows["exchanges"]  # the last row may be cut
    assert any(line.endswith("and later cannot be read") for line in result.damage)
    assert path.read_bytes() == content[: len(content) // 2 + 100]


def test_wrong_index_is_damage(tmp_path: Path) -> None:
    path = filled_ledger(tmp_path / "ledger", 20)
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE other (question, attempt, temperature, PRIMARY KEY (question, attempt, temperature))"
        )
        pages = dict(connection.execute("SELECT name, rootpage FROM sqlite_master").fetchall())
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET rootpage = ? WHERE name = 'sqlite_autoindex_exchanges_1'",
            (pages["sqlite_autoindex_other_1"],),
        )
    assert any(line.startswith("structure: ") for line in verify_ledger(path).damage)


def test_swapped_pages_are_error(tmp_path: Path) -> None:
    path = filled_ledger(tmp_path / "ledger", 1300)
    content = path.read_bytes()
    first, second = (content.index(b"x" * 300, start) // 4096 * 4096 for start in (100_000, 200_000))
    pages = {first: content[second : second + 4096], second: content[first : first + 4096]}
    for offset, page in pages.items():
        content = content[:offset] + page + content[offset + 4096 :]
    path.write_bytes(content)
    assert not verify_ledger(path).is_valid
    with pytest.raises(StateError), LedgerReader(path) as reader:
        list(reader.rows(EXCHANGES))


def test_write_ahead_log_of_killed_process_read(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    with Ledger(tmp_path / "ledger") as ledger:
        for n in range(50):
            ledger.put(make_exchange(f"q{n}"))
        shutil.copy(tmp_path / "ledger", copy)
        shutil.copy(tmp_path / "ledger-wal", tmp_path / "copy-wal")
    result = verify_ledger(copy)
    assert (result.rows["exchanges"], result.damage) == (50, [])
    wal = tmp_path / "copy-wal"
    wal.write_bytes(wal.read_bytes()[:-1000])  # cut in the last commit
    result = verify_ledger(copy)
    assert (result.rows["exchanges"], result.damage) == (49, [])


@pytest.mark.parametrize("salvage", [False, True])
def test_read_only_folder_is_readable(tmp_path: Path, salvage: bool) -> None:
    folder = tmp_path / "backup"
    path = write_ledger(folder / "ledger.sqlite", {"a": ("[[1]]", 10.0)})
    folder.chmod(0o500)
    try:
        with LedgerReader(path, salvage=salvage) as reader:
            assert [row.values[0] for row in reader.rows(EXCHANGES)] == ["a"]
    finally:
        folder.chmod(0o700)


def test_files_that_are_not_ledgers_are_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no ledger here"):
        verify_ledger(tmp_path / "absent")
    path = tmp_path / "other"
    execute(path, "CREATE TABLE runs (id INTEGER)")
    with pytest.raises(StateError, match="another program"):
        verify_ledger(path)
    path.write_text("notes\n" * 1000)
    assert "not a database" in verify_ledger(path).damage[0]
