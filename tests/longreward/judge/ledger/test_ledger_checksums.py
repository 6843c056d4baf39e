"""A damaged row is never served, whatever byte it is, and version 1, which had no checksums, gets them."""

import logging
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ledgers import exchange, of_version_1

from longreward.errors import StateError
from longreward.judge.ledger import Ledger
from longreward.judge.ledger.file_systems import network_file_system
from longreward.judge.ledger.schema import checksum
from longreward.retrieval.embedding_cache import VectorLedger


@pytest.mark.parametrize(
    "change",
    [
        "text = '[[9]]'",
        "text = CAST(x'5b5bff5d5d' AS TEXT)",  # no UTF-8
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
def test_a_row_that_was_changed_is_not_served_but_kept_aside_and_asked_again(
    tmp_path: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.put_many([exchange("a"), exchange("b")])
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE exchanges SET {change} WHERE question = 'a'")
    with Ledger(path) as ledger:
        with caplog.at_level(logging.WARNING):
            assert ledger.find("a") == []
        assert "row 1 of exchanges is damaged" in caplog.text
        assert ledger.damaged == 1
        ledger.put(exchange("a", "[[8]]"))
        assert ledger.find("a") == [exchange("a", "[[8]]")]
        assert ledger.find("b") == [exchange("b")]
    with sqlite3.connect(path) as connection:
        ((content, why, row),) = connection.execute("SELECT content, why, row FROM aside").fetchall()
    assert (content, why) == ("exchanges", "damaged")
    assert row.startswith('["a",')


def test_a_vector_that_was_changed_is_not_served(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with VectorLedger(path) as vectors:
        vectors.put({b"a": b"\0\x3c", b"b": b"\0\x38"}, model="m", revision="")
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE vectors SET vector = x'0038' WHERE key = x'61'")
        assert list(vectors.find([b"a", b"b"])) == [b"b"]
        vectors.put({b"a": b"\0\x3c"}, model="m", revision="")
        assert vectors.find([b"a"])[b"a"].tolist() == [1.0]


def test_the_checksum_tells_values_types_and_places_apart() -> None:
    rows = [
        ["a", "b"],
        ["ab", ""],
        ["b", "a"],
        ["a", b"b"],
        ["a", None],
        [1, "b"],
        [1.0, "b"],
        ["1", "b"],
        ["a", {"blob": "62"}],
    ]
    assert len({checksum(row) for row in rows[:-1]}) == len(rows) - 1
    assert checksum(["好", 1, None]).hex() == "3864464c0a4b8f88"  # a ledger outlives the program that wrote it


def test_whatever_byte_of_the_file_changes_no_wrong_answer_is_served(tmp_path: Path) -> None:
    """500 random places, one bit each: right answers, no answer, or a StateError."""
    whole = tmp_path / "whole.sqlite"
    answers = {f"{n:064x}": f"The statement {n} is supported. [[{n % 10}]]" * (1 + n % 7) for n in range(60)}
    with Ledger(whole) as ledger:
        ledger.put_many([exchange(question, text) for question, text in answers.items()])
    content, chance = whole.read_bytes(), random.Random(1)
    missing = 0
    for n in range(500):
        damaged = bytearray(content)
        damaged[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        copy = tmp_path / f"{n}.sqlite"
        copy.write_bytes(damaged)
        served = every_answer(copy, answers)
        missing += len(answers) - len(served)
        assert served.items() <= answers.items()
        copy.unlink()
    assert missing > 0


def every_answer(path: Path, questions: dict[str, str]) -> dict[str, str]:
    served = {}
    try:
        with Ledger(path, busy_timeout_s=0.1) as ledger:
            for question in questions:
                try:
                    for each in ledger.find(question):
                        assert each.request_id == question
                        served[question] = each.reply.text
                except StateError:
                    continue
    except StateError:
        pass
    return served


def test_a_ledger_of_version_1_goes_on_with_checksums(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    of_version_1(path, rows=2500)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE exchanges SET text = CAST(x'ff' AS TEXT) WHERE question = 'q7'")
    with Ledger(path) as ledger, VectorLedger(path) as vectors:
        assert ledger.find("q2499") == [exchange("q2499")]
        assert ledger.find("q7") == []  # no UTF-8 any more: nobody wrote that
        assert vectors.find([b"a"])[b"a"].tolist() == [1.0]
        ledger.put(exchange("new"))
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        assert connection.execute("SELECT count(*) FROM exchanges WHERE length(checksum) = 8").fetchone() == (2500,)
        assert connection.execute("SELECT count(*) FROM aside").fetchone() == (1,)


def test_only_a_vectorless_ledger_of_version_1_gets_the_missing_tables(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    of_version_1(path, rows=1)
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE vectors")
    with VectorLedger(path) as vectors, Ledger(path) as ledger:
        assert vectors.count() == 0
        assert ledger.totals().exchanges == 1


OPENER = """
import sys, time
from pathlib import Path
from longreward.judge.ledger import Ledger
while time.time() < float(sys.argv[2]):
    pass
with Ledger(Path(sys.argv[1])) as ledger:
    assert ledger.find("q1999")
    assert ledger.damaged == 0
"""


def test_many_processes_open_a_ledger_of_version_1_in_the_same_moment(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    of_version_1(path, rows=2000)
    start = str(time.time() + 0.8)
    openers = [subprocess.Popen([sys.executable, "-c", OPENER, str(path), start]) for _ in range(5)]
    assert [opener.wait(30) for opener in openers] == [0] * 5


KILLED = """
import os, signal, sys
from pathlib import Path
from longreward.judge.ledger import migration
from longreward.judge.ledger import Ledger
seal = migration._seal
def seal_and_die(connection, table):
    seal(connection, table)
    os.kill(os.getpid(), signal.SIGKILL)
migration._seal = seal_and_die
Ledger(Path(sys.argv[1]))
"""


def test_a_process_killed_while_it_adds_checksums_leaves_version_1_which_the_next_one_takes_over(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.sqlite"
    of_version_1(path, rows=1500)
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)]).returncode == -signal.SIGKILL
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    with Ledger(path) as ledger:
        assert ledger.find("q1499") == [exchange("q1499")]
        assert ledger.damaged == 0


MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 22 0:35 / /home rw,relatime shared:9 - nfs4 filer:/home rw,vers=4.2
41 40 254:1 / /home/me/local rw - xfs /dev/vdb rw
42 22 0:36 / /mnt/my\\040share rw - cifs //server/share rw
43 22 0:37 / /mnt/ssh rw - fuse.sshfs me@host: rw
44 22 0:38 / /mnt/union rw - fuse.mergerfs a:b rw
"""


def test_network_file_systems_are_told_by_where_they_are_mounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    monkeypatch.setattr("longreward.judge.ledger.file_systems.MOUNTS", mounts)
    places = ("/home/me/x", "/home/me/local/x", "/homes/x", "/mnt/my share/x", "/mnt/ssh/x", "/mnt/union/x")
    found = [network_file_system(Path(place)) for place in places]
    assert found == ["nfs4", None, None, "cifs", "fuse.sshfs", None]


def test_a_ledger_on_a_network_file_system_says_what_to_do_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text("22 1 0:35 / / rw - nfs filer:/ rw\n")
    monkeypatch.setattr("longreward.judge.ledger.file_systems.MOUNTS", mounts)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            Ledger(tmp_path / "ledger.sqlite").close()
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        f"{tmp_path / 'ledger.sqlite'} lies on a network file system (nfs)"
    ]
    assert "longreward ledger merge" in caplog.text
