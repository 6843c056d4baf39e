"""Ledgers merge to the same result in any order, while other processes write, and without damaged rows."""

import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ledgers import execute, make_exchange, read_replies, write_ledger

from longreward.errors import ConfigError, DataError, StateError
from longreward.judge.ledger import Ledger
from longreward.judge.ledger.merge import merge_ledgers
from longreward.judge.ledger.reader import verify_ledger
from longreward.retrieval.embedding_cache import VectorLedger


def test_first_reply_kept_and_conflicts_reported(tmp_path: Path) -> None:
    first = write_ledger(tmp_path / "one", {"a": ("[[1]]", 10.0), "b": ("[[2]]", 20.0), "c": ("[[3]]", 30.0)})
    second = write_ledger(
        tmp_path / "two", {"a": ("[[4]]", 5.0), "b": ("[[5]]", 25.0), "c": ("[[3]]", 35.0), "d": ("[[6]]", 1.0)}
    )
    (result,) = merge_ledgers([second], into=first)
    assert read_replies(first) == {"a": "[[4]]", "b": "[[2]]", "c": "[[3]]", "d": "[[6]]"}
    assert (result.added["exchanges"], result.present["exchanges"], result.conflicting["exchanges"]) == (1, 1, 2)
    assert verify_ledger(first).is_valid


def test_any_order_and_repetition_give_same_result(tmp_path: Path) -> None:
    contents = [
        {"a": ("[[1]]", 10.0), "b": ("[[2]]", 7.0), "c": ("[[1]]", 5.0)},
        {"a": ("[[3]]", 10.0), "b": ("[[4]]", 6.0)},
        {"a": ("[[5]]", 10.0), "c": ("[[6]]", 4.0), "d": ("[[7]]", 1.0)},
    ]
    sources = [write_ledger(tmp_path / f"source-{n}", content) for n, content in enumerate(contents)]
    results = []
    for n, order in enumerate(itertools.permutations(sources)):
        target = tmp_path / f"target-{n}"
        merge_ledgers(order, into=target)
        results.append(read_replies(target))
        repeated = merge_ledgers(sources, into=target)
        assert sum(result.added["exchanges"] for result in repeated) == 0
        assert read_replies(target) == results[-1]
    assert all(result == results[0] for result in results)  # also for "a", whose rows have the same time
    assert (results[0]["b"], results[0]["c"], results[0]["d"]) == ("[[4]]", "[[6]]", "[[7]]")


def test_earlier_copy_of_same_reply_keeps_time(tmp_path: Path) -> None:
    first = write_ledger(tmp_path / "one", {"a": ("[[1]]", 10.0)})
    second = write_ledger(tmp_path / "two", {"a": ("[[1]]", 5.0)})
    (result,) = merge_ledgers([second], into=first)
    assert (result.present["exchanges"], result.conflicting["exchanges"]) == (1, 0)
    assert execute(first, "SELECT recorded_at FROM exchanges") == [(5.0,)]


def test_vectors_merged_and_progress_reported(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "deep" / "target"
    with Ledger(source) as ledger, VectorLedger(source) as vectors:
        ledger.put_many([make_exchange(f"q{n}") for n in range(700)])
        vectors.put({b"a": b"\0\x3c"}, model="m", revision="")
    content = source.read_bytes()
    progress: list[int] = []
    (result,) = merge_ledgers([source], into=target, on_progress=lambda _, rows: progress.append(rows))
    assert result.added == {"exchanges": 700, "vectors": 1}
    assert progress == [500, 700, 701]
    assert source.read_bytes() == content
    with Ledger(target) as ledger, VectorLedger(target) as vectors:
        assert ledger.find("q699") == [make_exchange("q699")]
        assert vectors.find([b"a"])[b"a"].tolist() == [1.0]


def test_invalid_sources_reported_before_anything_is_merged(tmp_path: Path) -> None:
    first = write_ledger(tmp_path / "one", {"a": ("[[1]]", 10.0)})
    with pytest.raises(ConfigError, match="--into"):
        merge_ledgers([first], into=first)
    for salvage in (False, True):
        with pytest.raises(DataError, match=r"absent.*no ledger here"):
            merge_ledgers([first, tmp_path / "absent"], into=tmp_path / "new", salvage=salvage)
    assert not (tmp_path / "new").exists()
    (tmp_path / "notes").write_text("notes\n" * 100)
    with pytest.raises(StateError, match="not a database"):
        merge_ledgers([tmp_path / "notes"], into=first)


@pytest.mark.parametrize("kind", ["overwritten", "truncated"])
def test_damaged_source_refused_or_salvaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr("longreward.judge.ledger.reader.MAX_MISSING_ROWS", 2000)
    source, target = tmp_path / "source", tmp_path / "target"
    replies = {f"{n:04d}": f"{n} " * 200 for n in range(1500)}
    with Ledger(source) as ledger:
        ledger.put_many([make_exchange(request_id, text) for request_id, text in replies.items()])
    content = bytearray(source.read_bytes())
    changed = content.index(b"400 400")
    content[changed : changed + 3] = b"999"
    if kind == "truncated":
        source.write_bytes(content[: len(content) * 2 // 3])
    else:
        content[200_000:240_000] = b"\x5a" * 40_000  # about ten pages
        source.write_bytes(content)
    with pytest.raises(StateError, match=r"Nothing was merged; --salvage"):
        merge_ledgers([source], into=target)
    assert not target.exists()
    (result,) = merge_ledgers([source], into=target, salvage=True)
    recovered = read_replies(target)
    assert recovered.items() <= replies.items()
    assert (900 if kind == "truncated" else 1300) < len(recovered) < 1499
    assert "0400" not in recovered
    assert result.added["exchanges"] == len(recovered)
    assert result.damaged["exchanges"] >= 1
    assert result.gaps["exchanges"]
    assert verify_ledger(target).is_valid


def test_damaged_row_of_target_replaced(tmp_path: Path) -> None:
    first = write_ledger(tmp_path / "one", {"a": ("[[1]]", 10.0)})
    second = write_ledger(tmp_path / "two", {"a": ("[[1]]", 20.0)})
    execute(first, "UPDATE exchanges SET text = '[[9]]'")
    (result,) = merge_ledgers([second], into=first)
    assert read_replies(first) == {"a": "[[1]]"}
    assert result.added["exchanges"] == 1


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from ledgers import make_exchange
from longreward.judge.ledger import Ledger
with Ledger(Path(sys.argv[1])) as ledger:
    print("ready", flush=True)
    for n in range(400):
        ledger.put(make_exchange(f"run{n}"))
"""


def test_processes_write_to_source_and_target_during_merge(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for path in (source, target):
        with Ledger(path) as ledger:
            ledger.put_many([make_exchange(f"{path.name}{n}") for n in range(600)])
    command = [sys.executable, "-c", WRITER]
    writers = [
        subprocess.Popen([*command, path, str(Path(__file__).parent)], stdout=subprocess.PIPE)
        for path in (source, target)
    ]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.readline()
    merge_ledgers([source], into=target)
    assert [writer.wait(60) for writer in writers] == [0, 0]
    merge_ledgers([source], into=target)
    assert len(read_replies(target)) == 600 + 600 + 400
    assert verify_ledger(target).is_valid


def test_attempts_of_two_machines_combined(tmp_path: Path) -> None:
    first, second = tmp_path / "one", tmp_path / "two"
    with Ledger(first) as ledger:
        ledger.put(replace(make_exchange("a", "hm"), outcome="unreadable", reason="no verdict"))
        ledger.put(replace(make_exchange("a", "[[8]]"), attempt=2, temperature=0.95))
    with Ledger(second) as ledger:
        ledger.put(make_exchange("a", "[[5]]"))
    merge_ledgers([first], into=second)
    with Ledger(second) as ledger:
        exchanges = [(exchange.attempt, exchange.reply.text) for exchange in ledger.find("a")]
    assert exchanges == [(1, "hm"), (2, "[[8]]")]
