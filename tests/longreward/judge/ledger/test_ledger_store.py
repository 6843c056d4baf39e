"""Damaged rows are deleted and never returned; a file that cannot be used is reported with advice."""

import logging
import os
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from ledgers import execute, make_exchange

from longreward.errors import StateError
from longreward.judge.ledger import Ledger
from longreward.judge.ledger.schema import checksum
from longreward.judge.ledger.store import Store
from longreward.retrieval.embedding_cache import VectorLedger


@pytest.mark.parametrize(
    "change",
    [
        "text = '[[9]]'",
        "text = CAST(x'5b5bff5d5d' AS TEXT)",  # not UTF-8
        "text = x'5b5b375d5d'",  # the same bytes, another type
        "outcome = 'unreadable'",
        "attempt = 2",
        "temperature = 0.02",
        "prompt_tokens = 11",
        "reason = ''",
        "recorded_at = recorded_at + 1",
        "checksum = x''",
    ],
)
def test_changed_row_deleted_and_can_be_replaced(tmp_path: Path, change: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.put_many([make_exchange("a"), make_exchange("b")])
    execute(path, f"UPDATE exchanges SET {change} WHERE question = 'a'")
    with Ledger(path) as ledger:
        with caplog.at_level(logging.WARNING):
            assert ledger.find("a") == []
        assert "row 1 of exchanges is damaged" in caplog.text
        assert ledger.damaged == 1
        ledger.put(make_exchange("a", "[[8]]"))
        assert ledger.find("a") == [make_exchange("a", "[[8]]")]
        assert ledger.find("b") == [make_exchange("b")]


def test_changed_vector_not_returned(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with VectorLedger(path) as vectors:
        vectors.put({b"a": b"\0\x3c", b"b": b"\0\x38"}, model="m", revision="")
        execute(path, "UPDATE vectors SET vector = x'0038' WHERE key = x'61'")
        assert list(vectors.find([b"a", b"b"])) == [b"b"]
        vectors.put({b"a": b"\0\x3c"}, model="m", revision="")
        assert vectors.find([b"a"])[b"a"].tolist() == [1.0]


def test_row_that_another_process_replaced_meanwhile_is_not_deleted(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    query = Store._query

    def query_and_replace(store: Store, statement: str, values: object = ()) -> list[tuple[object, ...]]:
        rows = query(store, statement, values)  # type: ignore[arg-type]
        if statement.startswith("SELECT"):
            execute(path, "DELETE FROM exchanges")
            with Ledger(path) as other:
                other.put(make_exchange("a", "[[8]]"))
        return rows

    with Ledger(path) as ledger:
        ledger.put(make_exchange("a"))
        execute(path, "UPDATE exchanges SET text = '[[9]]'")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Store, "_query", query_and_replace)
            assert ledger.find("a") == []
        assert ledger.find("a") == [make_exchange("a", "[[8]]")]
        assert ledger.damaged == 0


def test_checksum_depends_on_values_types_and_positions() -> None:
    rows = [["a", "b"], ["ab", ""], ["b", "a"], ["a", b"b"], ["a", None], [1, "b"], [1.0, "b"], ["1", "b"]]
    assert len({checksum(row) for row in rows}) == len(rows)
    assert checksum(["好", 1, None]).hex() == "3864464c0a4b8f88"  # existing ledgers contain checksums


def test_flipped_bit_gives_no_wrong_reply(tmp_path: Path) -> None:
    original = tmp_path / "original.sqlite"
    replies = {f"{n:064x}": f"The statement {n} is supported. [[{n % 10}]]" * (1 + n % 7) for n in range(60)}
    with Ledger(original) as ledger:
        ledger.put_many([make_exchange(request_id, text) for request_id, text in replies.items()])
    content, rng = original.read_bytes(), random.Random(1)
    missing = 0
    for n in range(150):
        damaged = bytearray(content)
        damaged[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        copy = tmp_path / f"{n}.sqlite"
        copy.write_bytes(damaged)
        returned = read_available_replies(copy, list(replies))
        missing += len(replies) - len(returned)
        assert returned.items() <= replies.items()
        copy.unlink()
    assert missing > 0


def read_available_replies(path: Path, request_ids: list[str]) -> dict[str, str]:
    replies = {}
    try:
        with Ledger(path, busy_timeout_s=0.1) as ledger:
            for request_id in request_ids:
                try:
                    for exchange in ledger.find(request_id):
                        assert exchange.request_id == request_id
                        replies[request_id] = exchange.reply.text
                except StateError:
                    continue
    except StateError:
        pass
    return replies


def test_index_that_points_to_other_rows_gives_no_wrong_reply(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.put_many([make_exchange("aaaa"), make_exchange("bbbb")])
    ((root,),) = execute(path, "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_exchanges_1'")
    content = path.read_bytes()
    start = (int(str(root)) - 1) * 4096
    page = content[start : start + 4096]
    wrong = page.replace(b"aaaa", b"AAAA").replace(b"bbbb", b"aaaa")  # keeps the order of the keys
    path.write_bytes(content[:start] + wrong + content[start + 4096 :])
    with Ledger(path) as ledger:
        assert ledger.find("aaaa") == []
        assert ledger.damaged == 0  # the row itself is valid


FILLER = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from ledgers import make_exchange
from longreward.errors import StateError
from longreward.judge.ledger import Ledger
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger = Ledger(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
committed = 0
try:
    for n in range(1000):
        ledger.put(make_exchange(str(n), "x" * 2000))
        committed += 1
except StateError as error:
    print(committed, error)
"""


def test_full_disk_reported_and_committed_rows_stay(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    command = [sys.executable, "-c", FILLER, str(path), str(Path(__file__).parent)]
    committed, message = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(" ", 1)
    assert int(committed) > 5
    assert str(path) in message
    assert "full" in message
    with Ledger(path) as ledger:
        assert ledger.totals().exchanges == int(committed)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_read_only_folder_reported(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StateError, match="LONGREWARD_STATE"):
            Ledger(tmp_path / "ledger.sqlite")
    finally:
        tmp_path.chmod(0o700)


def test_file_in_place_of_folder_reported(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StateError, match="LONGREWARD_STATE"):
        Ledger(tmp_path / "state" / "ledger.sqlite")


def test_open_retried_while_other_process_switches_to_wal_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_tables, attempts = Store._create_tables, []

    def create_tables_on_third_attempt(store: Store) -> None:
        attempts.append(store)
        if len(attempts) < 3:
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorname = "SQLITE_BUSY_RECOVERY"
            raise error
        create_tables(store)

    monkeypatch.setattr(Store, "_create_tables", create_tables_on_third_attempt)
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.put(make_exchange("a"))
        assert ledger.find("a") == [make_exchange("a")]
    assert len(attempts) == 3


def test_locked_file_reported(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, busy_timeout_s=0.05) as ledger, sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StateError, match="holds a lock"):
            ledger.put(make_exchange("a"))
        other.execute("ROLLBACK")
        ledger.put(make_exchange("a"))
        assert ledger.totals().exchanges == 1


def test_file_that_is_not_database_is_left_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_text("these are notes\n" * 100)
    with pytest.raises(StateError, match="not a ledger"):
        Ledger(path)
    assert path.read_text() == "these are notes\n" * 100


def test_database_of_another_program_is_left_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    execute(path, "CREATE TABLE runs (id INTEGER)")
    with pytest.raises(StateError, match="another program"):
        Ledger(path)
    assert execute(path, "SELECT name FROM sqlite_master") == [("runs",)]


@pytest.mark.parametrize("version", [1, 3])
def test_ledger_of_another_version_refused(tmp_path: Path, version: int) -> None:
    path = tmp_path / "ledger.sqlite"
    execute(path, f"PRAGMA user_version = {version}")
    with pytest.raises(StateError, match=f"version {version}"):
        Ledger(path)


def test_damaged_pages_reported_with_advice_and_file_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.put_many([make_exchange(str(n), "x" * 1000) for n in range(200)])
    content = bytearray(path.read_bytes())
    content[4096:-4096] = random.Random(0).randbytes(len(content) - 8192)
    path.write_bytes(content)
    with Ledger(path) as ledger, pytest.raises(StateError, match=r"damaged.*--salvage"):
        [ledger.find(str(n)) for n in range(200)]
    assert path.read_bytes()[5000:6000] == content[5000:6000]
