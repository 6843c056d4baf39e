"""The command `longreward ledger`."""

import json
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from longreward.chat_model import ChatReply, TokenUsage
from longreward.flows.cli.main import main
from longreward.judge.ledger import Exchange, Ledger
from longreward.retrieval.embedding_cache import VectorLedger

EXCHANGE = Exchange(
    "q1",
    1,
    0.01,
    "support",
    "p",
    "glm-4",
    "",
    ChatReply("好 [[7]]", "stop", TokenUsage(1000, 20, 100)),
    "readable",
    None,
)
UNREADABLE = replace(EXCHANGE, request_id="q2", template="helpfulness", outcome="unreadable", reason="no verdict")
OTHER_JUDGE = replace(EXCHANGE, request_id="q3", judge="gpt-4o", revision="2")


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ledger in the state folder, which is the default of all actions."""
    monkeypatch.setenv("LONGREWARD_STATE", str(tmp_path))
    monkeypatch.setattr("longreward.judge.ledger.exchanges.time.time", lambda: 1_700_000_000.5)
    path = tmp_path / "ledger.sqlite"
    with Ledger(path) as ledger, VectorLedger(path) as vectors:
        ledger.put_many([EXCHANGE, UNREADABLE, replace(UNREADABLE, attempt=2, temperature=0.95), OTHER_JUDGE])
        vectors.put({b"a": b"\0\x3c\0\0"}, model="bge-m3", revision="")
    return path


def test_stats_count_by_judge_and_template(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ledger", "stats"]) == 0
    lines = [line.replace("|", " ").split() for line in capsys.readouterr().out.splitlines()]
    day = ["2023-11-14", "22:13"]
    assert ["glm-4", "helpfulness", "1", "2", "0", "2", "0", "2,000", "40", "200", *day, *day] in lines
    assert ["glm-4", "support", "1", "1", "1", "0", "0", "1,000", "20", "100", *day, *day] in lines
    assert ["gpt-4o", "2", "support", "1", "1", "1", "0", "0", "1,000", "20", "100", *day, *day] in lines
    assert ["bge-m3", "1", "4", *day, *day] in lines


def test_stats_as_json(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ledger", "stats", "--json", str(ledger)]) == 0
    stats = json.loads(capsys.readouterr().out)
    assert [(group["template"], group["requests"], group["exchanges"]) for group in stats["exchanges"]] == [
        ("helpfulness", 1, 2),
        ("support", 1, 1),
        ("support", 1, 1),
    ]
    assert stats["vectors"][0]["bytes"] == 4


def test_export_writes_one_exchange_per_line(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ledger", "export", "--judge", "glm-4", "--template", "support"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {
        "question": "q1",
        "attempt": 1,
        "temperature": 0.01,
        "template": "support",
        "prompt_hash": "p",
        "judge": "glm-4",
        "revision": "",
        "text": "好 [[7]]",
        "finish_reason": "stop",
        "model": "",
        "prompt_tokens": 1000,
        "completion_tokens": 20,
        "cached_tokens": 100,
        "outcome": "readable",
        "reason": None,
        "recorded_at": "2023-11-14T22:13:20.500000+00:00",
    }


def test_export_leaves_out_damaged_rows_and_exits_with_1(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sqlite3.connect(ledger) as connection:
        connection.execute("UPDATE exchanges SET text = '[[9]]' WHERE question = 'q1'")
    out = ledger.with_name("out.jsonl")
    assert main(["ledger", "export", "--out", str(out)]) == 1
    assert [json.loads(line)["question"] for line in out.read_text(encoding="utf-8").splitlines()] == ["q2", "q2", "q3"]
    assert "1 damaged rows left out" in capsys.readouterr().err


def test_verify_exits_with_1_if_damaged(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ledger", "verify"]) == 0
    assert "4 exchanges, 1 vectors: valid" in capsys.readouterr().out
    with sqlite3.connect(ledger) as connection:
        connection.execute("UPDATE vectors SET vector = x'00'")
    assert main(["ledger", "verify"]) == 1
    assert 'vectors row 1: wrong checksum; its key reads [{"blob":"61"}]' in capsys.readouterr().out


def test_merge_prints_counts_and_conflicts(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = ledger.with_name("other.sqlite")
    with Ledger(other) as ledger_file:
        ledger_file.put_many([replace(EXCHANGE, reply=ChatReply("[[1]]")), replace(EXCHANGE, request_id="q9")])
    assert main(["ledger", "merge", str(other)]) == 0
    output = capsys.readouterr().out
    assert "1 exchanges added, 0 already present, 1 conflicting" in output


def test_missing_ledger_is_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ledger", "stats", str(tmp_path / "absent")]) == 1
    assert "there is no ledger here" in capsys.readouterr().err


def test_without_action_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ledger"]) == 2
    assert "verify" in capsys.readouterr().out


def test_import_loads_no_heavy_modules() -> None:
    script = "import sys, longreward.flows.cli.main; print({'sqlite3', 'pydantic', 'numpy'} & {*sys.modules})"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
