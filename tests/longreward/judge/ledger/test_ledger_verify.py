"""`verify` names every damaged place of a ledger and finds nothing in a whole one."""

import shutil
import sqlite3
from pathlib import Path

import pytest
from ledgers import exchange, of_version_1

from longreward.errors import DataError, StateError
from longreward.judge.ledger import Ledger
from longreward.judge.ledger.reader import verify_ledger
from longreward.retrieval.embedding_cache import VectorLedger


def filled(path: Path, rows: int) -> Path:
    with Ledger(path) as ledger:
        ledger.put_many([exchange(f"q{n}", "x" * 300) for n in range(rows)])
    return path


def test_a_whole_ledger_has_nothing_to_report(tmp_path: Path) -> None:
    path = filled(tmp_path / "ledger", 1300)
    with VectorLedger(path) as vectors:
        vectors.put({b"a": b"\0\x3c"}, model="m", revision="")
    found = verify_ledger(path)
    assert (found.rows, found.damage, found.notes) == ({"exchanges": 1300, "vectors": 1}, [], [])


def test_a_changed_row_is_named_by_number_and_key(tmp_path: Path) -> None:
    path = filled(tmp_path / "ledger", 20)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE exchanges SET text = '[[10]]' WHERE question = 'q11'")
    assert verify_ledger(path).damage == ['exchanges row 12: the checksum does not hold; its key reads ["q11",1,0.01]']


def test_pages_that_cannot_be_read_are_named_by_their_rows(tmp_path: Path) -> None:
    path = filled(tmp_path / "ledger", 1300)
    content = bytearray(path.read_bytes())
    content[100_000:120_000] = bytes(20_000)
    path.write_bytes(content)
    found = verify_ledger(path)
    assert any(line.startswith("structure: ") for line in found.damage)
    assert any("cannot be read" in line for line in found.damage)
    assert 1100 < found.rows["exchanges"] < 1300


def test_an_index_that_leads_elsewhere_is_damage(tmp_path: Path) -> None:
    path = filled(tmp_path / "ledger", 20)
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
    assert any("structure: " in line for line in verify_ledger(path).damage)


def test_a_ledger_of_version_1_is_said_to_have_no_checksums_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    of_version_1(path, rows=3)
    before = path.read_bytes()
    found = verify_ledger(path)
    assert (found.is_sound, found.rows["exchanges"]) == (True, 3)
    assert "version 1" in found.notes[0]
    assert path.read_bytes() == before


def test_a_log_without_its_ledger_is_damage(tmp_path: Path) -> None:
    copy = copied_with_log(tmp_path, rows=5)
    copy.unlink()
    assert "has lost its ledger" in verify_ledger(copy).damage[0]
    with pytest.raises(DataError, match="no ledger here"):
        verify_ledger(tmp_path / "absent")


def copied_with_log(folder: Path, rows: int) -> Path:
    """As a killed process leaves it: each row's commit is in the log."""
    copy = folder / "copy"
    with Ledger(folder / "ledger") as ledger:
        for n in range(rows):
            ledger.put(exchange(f"q{n}"))
        shutil.copy(folder / "ledger", copy)
        shutil.copy(folder / "ledger-wal", folder / "copy-wal")
    return copy


def test_the_log_of_a_killed_process_is_no_damage(tmp_path: Path) -> None:
    copy = copied_with_log(tmp_path, rows=50)
    found = verify_ledger(copy)
    assert (found.rows["exchanges"], found.damage) == (50, [])
    assert "keep it beside the ledger" in found.notes[0]


def test_a_log_cut_in_its_last_frame_is_no_damage(tmp_path: Path) -> None:
    log = copied_with_log(tmp_path, rows=50).with_name("copy-wal")
    log.write_bytes(log.read_bytes()[:-1000])
    found = verify_ledger(tmp_path / "copy")
    assert found.damage == []
    assert found.rows["exchanges"] == 49


def test_a_broken_frame_that_hides_commits_behind_it_is_damage(tmp_path: Path) -> None:
    log = copied_with_log(tmp_path, rows=50).with_name("copy-wal")
    content = bytearray(log.read_bytes())
    content[len(content) // 2] ^= 1
    log.write_bytes(content)
    found = verify_ledger(tmp_path / "copy")
    assert "not read any more" in found.damage[0]
    assert found.rows["exchanges"] < 50


def test_a_log_whose_header_is_broken_is_damage(tmp_path: Path) -> None:
    log = copied_with_log(tmp_path, rows=50).with_name("copy-wal")
    log.write_bytes(b"\xff" * 8 + log.read_bytes()[8:])
    assert "header" in verify_ledger(tmp_path / "copy").damage[0]


def test_what_is_no_ledger_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "other"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE runs (id INTEGER)")
    with pytest.raises(StateError, match="another program's database"):
        verify_ledger(path)
    path.write_text("notes\n" * 1000)
    assert "not a database" in verify_ledger(path).damage[0]
