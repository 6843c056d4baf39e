"""Exchanges are stored once and returned as they were stored, also among threads and processes."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from ledgers import make_exchange

from longreward.chat_model import ChatReply, ChatRequest, TokenUsage
from longreward.errors import StateError
from longreward.judge.ledger import Exchange, Ledger, LedgerTotals, request_id

FULL = Exchange(
    request_id="a",
    attempt=2,
    temperature=0.95,
    template="helpfulness",
    prompt_hash="p",
    judge="j",
    revision="r",
    reply=ChatReply("hm", "length", TokenUsage(10, 2, 1), "j-2026"),
    outcome="unreadable",
    reason="no verdict",
)


def test_exchanges_returned_as_stored_and_sorted_by_attempt(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "ledger.sqlite"
    with Ledger(path) as ledger:
        ledger.put(FULL)
        ledger.put(make_exchange("a"))
        ledger.put(make_exchange("b"))
    with Ledger(path) as ledger:
        assert ledger.find("a") == [make_exchange("a"), FULL]
        assert ledger.find("c") == []
        refused = replace(FULL, request_id="d", outcome="refused", reply=ChatReply("", "content_filter"))
        ledger.put(refused)
        assert ledger.totals() == LedgerTotals(4, 2, 1, 1, 30, 6, 3)


def test_exchanges_of_one_attempt_sorted_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(None)
    for recorded_at, temperature in ((20.0, 0.3), (10.0, 0.9)):
        monkeypatch.setattr("longreward.judge.ledger.exchanges.time.time", lambda time=recorded_at: time)
        ledger.put(replace(FULL, temperature=temperature))
    assert [exchange.temperature for exchange in ledger.find("a")] == [0.9, 0.3]


def test_first_reply_of_attempt_kept() -> None:
    ledger = Ledger(None)
    ledger.put(make_exchange("a", "first"))
    ledger.put(make_exchange("a", "second"))
    assert [exchange.reply.text for exchange in ledger.find("a")] == ["first"]


def test_lone_surrogates_stored_as_question_marks() -> None:
    ledger = Ledger(None)
    ledger.put(replace(FULL, reply=ChatReply("好 \ud800 [[7]]"), reason="no verdict: …\ud800"))
    (stored,) = ledger.find("a")
    assert (stored.reply.text, stored.reason) == ("好 ? [[7]]", "no verdict: …?")


def test_impossible_token_counts_clipped() -> None:
    ledger = Ledger(None)
    ledger.put(replace(FULL, reply=ChatReply("[[7]]", "stop", TokenUsage(10**30, -5, 0))))
    assert ledger.find("a")[0].reply.usage == TokenUsage(2**63 - 1, 0, 0)


def test_put_many_commits_all_or_nothing(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.put(make_exchange("a", "first"))
        ledger.put_many([make_exchange("a", "second"), make_exchange("b"), make_exchange("c")])
        with pytest.raises(StateError, match="NOT NULL"):
            ledger.put_many([make_exchange("d"), replace(make_exchange("e"), request_id=None)])  # type: ignore[arg-type]
        assert [ledger.find(name)[0].reply.text for name in "abc"] == ["first", "[[7]]", "[[7]]"]
        assert ledger.find("d") == []
        assert ledger.totals().exchanges == 3


def test_threads_share_ledger(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger, ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda n: ledger.put_many([make_exchange(f"{n}-{m}") for m in range(20)]), range(40)))
        assert ledger.totals().exchanges == 800


def test_request_id_covers_all_fields_that_affect_reply() -> None:
    request = ChatRequest("support", {}, "Is it so?", "h", 512)
    same = ChatRequest("support", {"statement": "x"}, "Is it so?", "h2", 512)
    original = request_id(request, judge="j", revision="", extra={})
    assert request_id(same, judge="j", revision="", extra={}) == original
    others = [
        request_id(replace(request, max_tokens=1024), judge="j", revision="", extra={}),
        request_id(request, judge="k", revision="", extra={}),
        request_id(request, judge="j", revision="2", extra={}),
        request_id(request, judge="j", revision="", extra={"top_p": 0.5}),
        request_id(replace(request, system="Be strict."), judge="j", revision="", extra={}),
        request_id(replace(request, top_logprobs=5), judge="j", revision="", extra={}),
        request_id(replace(request, top_logprobs=6), judge="j", revision="", extra={}),
        request_id(replace(request, text="Is it not so?"), judge="j", revision="", extra={}),
    ]
    assert len({original, *others}) == 9


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from ledgers import make_exchange
from longreward.judge.ledger import Ledger
with Ledger(Path(sys.argv[1])) as ledger:
    for n in range(150):
        ledger.put(make_exchange(f"{sys.argv[2]}{n}"))
"""


def test_processes_create_and_fill_ledger_at_same_time(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    folder = str(Path(__file__).parent)
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, name, folder]) for name in "abc"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    with Ledger(path) as ledger:
        assert ledger.totals().exchanges == 450
