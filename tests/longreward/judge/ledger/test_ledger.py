"""The ledger keeps every exchange, for several processes at once, and says clearly why it cannot."""

import os
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from longreward.chat_model import ChatReply, ChatRequest, TokenUsage
from longreward.errors import StateError
from longreward.judge.ledger import Exchange, Ledger, LedgerTotals, request_id


def exchange(question: str, attempt: int = 1, text: str = "[[7]]", outcome: str = "readable") -> Exchange:
    return Exchange(
        request_id=question,
        attempt=attempt,
        temperature=0.01 if attempt == 1 else 0.95,
        template="helpfulness",
        prompt_hash="p",
        judge="j",
        revision="",
        reply=ChatReply(text, "stop", TokenUsage(10, 2, 1), "m"),
        outcome=outcome,  # type: ignore[arg-type]
        reason=None if outcome == "readable" else "why",
    )


def test_what_was_put_comes_back_by_attempt(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.put(exchange("a", 2))
        ledger.put(exchange("a", 1, "nothing", "unreadable"))
        ledger.put(exchange("b"))
    with Ledger(path) as ledger:
        assert ledger.find("a") == [exchange("a", 1, "nothing", "unreadable"), exchange("a", 2)]
        assert ledger.find("c") == []
        assert ledger.totals() == LedgerTotals(3, 2, 1, 0, 30, 6, 3)


def test_the_first_answer_to_an_attempt_stays() -> None:
    ledger = Ledger(None)
    ledger.put(exchange("a", text="first"))
    ledger.put(exchange("a", text="second"))
    assert [e.reply.text for e in ledger.find("a")] == ["first"]


def test_half_a_surrogate_pair_in_an_answer_is_kept_as_a_question_mark() -> None:
    ledger = Ledger(None)
    ledger.put(exchange("a", text="好 \ud800 [[7]]"))
    assert ledger.find("a")[0].reply.text == "好 ? [[7]]"


def test_an_unreadable_answer_of_half_a_surrogate_pair_is_kept_with_its_reason() -> None:
    ledger = Ledger(None)
    odd = replace(exchange("a", text="\ud800", outcome="unreadable"), reason="no verdict: …\ud800")
    ledger.put(odd)
    assert ledger.find("a")[0].reason == "no verdict: …?"


def test_a_server_that_counts_beyond_all_tokens_does_not_stop_the_run() -> None:
    ledger = Ledger(None)
    ledger.put(replace(exchange("a"), reply=ChatReply("[[7]]", "stop", TokenUsage(10**30, -5, 0))))
    assert ledger.find("a")[0].reply.usage == TokenUsage(2**63 - 1, 0, 0)


def test_many_exchanges_are_kept_in_one_commit_or_none_of_them(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.put(exchange("a", text="first"))
        ledger.put_many([exchange("a", text="second"), exchange("b"), exchange("c")])
        with pytest.raises(StateError, match="NOT NULL"):
            ledger.put_many([exchange("d"), replace(exchange("e"), request_id=None)])  # type: ignore[arg-type]
        assert [ledger.find(name)[0].reply.text for name in "abc"] == ["first", "[[7]]", "[[7]]"]
        assert ledger.find("d") == []
        assert ledger.totals().exchanges == 3


def test_threads_share_a_ledger(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger, ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda n: ledger.put_many([exchange(f"{n}-{m}") for m in range(20)]), range(40)))
        assert ledger.totals().exchanges == 800


def test_a_question_is_told_apart_by_all_that_can_change_its_answer() -> None:
    question = ChatRequest("support", {}, "Is it so?", "h", 512)
    same = ChatRequest("support", {"statement": "x"}, "Is it so?", "h2", 512)
    longer = ChatRequest("support", {}, "Is it so?", "h", 1024)
    identity = request_id(question, judge="j", revision="", extra={})
    assert request_id(same, judge="j", revision="", extra={}) == identity
    others = [
        request_id(longer, judge="j", revision="", extra={}),
        request_id(question, judge="k", revision="", extra={}),
        request_id(question, judge="j", revision="2", extra={}),
        request_id(question, judge="j", revision="", extra={"top_p": 0.5}),
        request_id(replace(question, system="Be strict."), judge="j", revision="", extra={}),
    ]
    assert len({identity, *others}) == 6


WRITER = """
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from longreward.chat_model import ChatReply
from longreward.judge.ledger import Exchange, Ledger
ledger = Ledger(Path(sys.argv[1]))
for n in range(500):
    ledger.put(Exchange(request_id=f"{sys.argv[2]}{n}", attempt=1, temperature=0.01, template="t", prompt_hash="p",
                        judge="j", revision="", reply=ChatReply("[[7]]"), outcome="readable", reason=None))
"""


def test_two_processes_write_at_once_and_lose_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "ledger.sqlite")
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, name]) for name in ("a", "b")]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    with Ledger(Path(path)) as ledger:
        assert ledger.totals().exchanges == 1000


FILLER = """
import resource, signal, sys
from pathlib import Path
from longreward.errors import StateError
from longreward.chat_model import ChatReply
from longreward.judge.ledger import Exchange, Ledger
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger = Ledger(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
kept = 0
try:
    for n in range(1000):
        ledger.put(Exchange(request_id=str(n), attempt=1, temperature=0.01, template="t", prompt_hash="p",
                            judge="j", revision="", reply=ChatReply("x" * 2000), outcome="readable", reason=None))
        kept += 1
except StateError as error:
    print(kept, error)
"""


def test_a_disk_without_room_is_named_and_what_was_kept_stays(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ended = subprocess.run([sys.executable, "-c", FILLER, str(path)], capture_output=True, text=True, check=True)
    kept, message = ended.stdout.split(" ", 1)
    assert int(kept) > 5
    assert str(path) in message
    assert "full" in message
    assert "Everything committed before is kept" in message
    with Ledger(path) as ledger:
        assert ledger.totals().exchanges == int(kept)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StateError, match=r"LONGREWARD_STATE"):
            Ledger(tmp_path / "ledger.sqlite")
    finally:
        tmp_path.chmod(0o700)


def test_a_file_in_the_folder_s_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(StateError, match="LONGREWARD_STATE"):
        Ledger(tmp_path / "state" / "ledger.sqlite")


def test_a_file_that_is_no_ledger_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_text("these are somebody's notes\n" * 100)
    with pytest.raises(StateError, match="Move it aside"):
        Ledger(path)
    assert path.read_text().startswith("these are somebody's notes")


def test_another_program_s_database_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE runs (id INTEGER)")
    before = path.read_bytes()
    with pytest.raises(StateError, match="another program's database"):
        Ledger(path)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("runs",)]
    assert path.read_bytes()[100:] == before[100:]


def test_a_damaged_ledger_is_named_and_left(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger:
        for n in range(200):
            ledger.put(exchange(str(n), text="x" * 1000))
    raw = bytearray(path.read_bytes())
    raw[4096:-4096] = os.urandom(len(raw) - 8192)
    path.write_bytes(raw)
    with pytest.raises(StateError, match=r"damaged.*Move it aside"):
        read_all(path)
    assert path.read_bytes()[5000:6000] == raw[5000:6000]


def read_all(path: Path) -> None:
    with Ledger(path) as ledger:
        for n in range(200):
            ledger.find(str(n))


def test_a_ledger_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 9")
    with pytest.raises(StateError, match="version 9"):
        Ledger(path)


def test_many_processes_open_a_new_ledger_in_the_same_moment(tmp_path: Path) -> None:
    """SQLite answers "locked" at once where two go over to WAL together, whatever its timeout."""
    for n in range(3):
        start, path = str(time.time() + 0.8), str(tmp_path / f"{n}.sqlite")
        openers = [subprocess.Popen([sys.executable, "-c", OPENER, path, start]) for _ in range(6)]
        assert [opener.wait(30) for opener in openers] == [0] * 6


OPENER = """
import sys, time
from pathlib import Path
from longreward.judge.ledger import Ledger
while time.time() < float(sys.argv[2]):
    pass
Ledger(Path(sys.argv[1])).close()
"""
