"""Several machines' ledgers come to one, whichever is merged first, while runs write, and without damaged rows."""

import itertools
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ledgers import exchange, of_version_1

from longreward.errors import ConfigError, DataError, StateError
from longreward.judge.ledger import Ledger
from longreward.judge.ledger.merge import Conflict, merge_ledgers
from longreward.judge.ledger.reader import verify_ledger
from longreward.retrieval.embedding_cache import VectorLedger


def ledger_of(path: Path, answers: dict[str, tuple[str, float]]) -> Path:
    """Of questions, each with its answer and the time at which it was recorded."""
    with pytest.MonkeyPatch.context() as patch, Ledger(path) as ledger:
        for question, (text, at) in answers.items():
            patch.setattr("longreward.judge.ledger.exchanges.time.time", lambda at=at: at)
            ledger.put(exchange(question, text))
    return path


def answers_in(path: Path) -> dict[str, str]:
    with sqlite3.connect(path) as connection:
        return dict(connection.execute("SELECT question, text FROM exchanges ORDER BY question").fetchall())


def test_of_two_answers_the_first_recorded_stays_and_the_other_is_reported(tmp_path: Path) -> None:
    one = ledger_of(tmp_path / "one", {"a": ("[[1]]", 10.0), "b": ("[[2]]", 20.0), "c": ("[[3]]", 30.0)})
    two = ledger_of(
        tmp_path / "two", {"a": ("[[4]]", 5.0), "b": ("[[5]]", 25.0), "c": ("[[3]]", 35.0), "d": ("[[6]]", 1.0)}
    )
    (merged,) = merge_ledgers([two], into=one)
    assert answers_in(one) == {"a": "[[4]]", "b": "[[2]]", "c": "[[3]]", "d": "[[6]]"}
    assert (merged.added["exchanges"], merged.present["exchanges"], merged.conflicting["exchanges"]) == (1, 1, 2)
    assert merged.conflicts == [
        Conflict("exchanges", '["a",1,0.01]', kept=two, other=one),
        Conflict("exchanges", '["b",1,0.01]', kept=one, other=two),
    ]
    with sqlite3.connect(one) as connection:
        ((why, row),) = connection.execute("SELECT why, row FROM aside").fetchall()
    assert why == "later"
    assert '"[[1]]"' in row
    assert verify_ledger(one).is_sound


def test_merging_in_any_order_and_again_comes_to_the_same(tmp_path: Path) -> None:
    for n, order in enumerate(itertools.permutations(range(3))):
        sources = [
            ledger_of(tmp_path / f"{n}-x", {"a": ("[[1]]", 10.0), "b": ("[[2]]", 7.0), "c": ("[[1]]", 5.0)}),
            ledger_of(tmp_path / f"{n}-y", {"a": ("[[3]]", 10.0), "b": ("[[4]]", 6.0)}),
            ledger_of(tmp_path / f"{n}-z", {"a": ("[[5]]", 10.0), "c": ("[[6]]", 4.0), "d": ("[[7]]", 1.0)}),
        ]
        into = tmp_path / f"{n}-all"
        merge_ledgers([sources[each] for each in order], into=into)
        found = answers_in(into)
        assert (found["b"], found["c"], found["d"]) == ("[[4]]", "[[6]]", "[[7]]")
        if n == 0:
            first = found["a"]  # recorded in the same moment: any one, but always the same
        assert found["a"] == first
        again = merge_ledgers(sources, into=into)
        assert sum(each.added["exchanges"] for each in again) == 0
        assert answers_in(into) == found


def test_vectors_and_ledgers_of_version_1_are_taken_too(tmp_path: Path) -> None:
    old, into = tmp_path / "old", tmp_path / "deep" / "new"
    of_version_1(old, rows=1200)
    before = old.read_bytes()
    (merged,) = merge_ledgers([old], into=into)
    assert merged.added == {"exchanges": 1200, "vectors": 1}
    assert old.read_bytes() == before
    with Ledger(into) as ledger, VectorLedger(into) as vectors:
        assert ledger.find("q1199") == [exchange("q1199")]
        assert vectors.find([b"a"])[b"a"].tolist() == [1.0]


def test_what_cannot_be_merged_is_named(tmp_path: Path) -> None:
    one = ledger_of(tmp_path / "one", {"a": ("[[1]]", 10.0)})
    with pytest.raises(ConfigError, match="merged into"):
        merge_ledgers([one], into=one)
    with pytest.raises(DataError, match=r"absent.*no ledger here"):
        merge_ledgers([one, tmp_path / "absent"], into=tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "notes").write_text("somebody's notes\n" * 100)
    with pytest.raises(StateError, match="not a ledger"):
        merge_ledgers([tmp_path / "notes"], into=one)


def test_a_damaged_source_is_refused_or_salvaged_row_by_row(tmp_path: Path) -> None:
    source, into = tmp_path / "source", tmp_path / "into"
    with Ledger(source) as ledger:
        ledger.put_many([exchange(f"{n:04d}", f"{n} " * 200) for n in range(1500)])
    whole = {f"{n:04d}": f"{n} " * 200 for n in range(1500)}
    damaged = bytearray(source.read_bytes())
    damaged[200_000:240_000] = b"\x5a" * 40_000  # about ten pages
    at = damaged.index(b"1400 1400")
    damaged[at : at + 4] = b"9999"
    source.write_bytes(damaged)
    with pytest.raises(StateError, match=r"Nothing was merged; --salvage"):
        merge_ledgers([source], into=into)
    assert not into.exists()
    (merged,) = merge_ledgers([source], into=into, salvage=True)
    saved = answers_in(into)
    assert saved.items() <= whole.items()
    assert 1300 < len(saved) < 1499
    assert "1400" not in saved
    assert merged.unreadable["exchanges"] >= 1
    assert merged.gaps["exchanges"]
    assert verify_ledger(into).is_sound


def test_a_damaged_row_of_the_target_gives_way_to_a_sound_one(tmp_path: Path) -> None:
    one = ledger_of(tmp_path / "one", {"a": ("[[1]]", 10.0)})
    two = ledger_of(tmp_path / "two", {"a": ("[[1]]", 10.0)})
    with sqlite3.connect(one) as connection:
        connection.execute("UPDATE exchanges SET text = '[[9]]'")
    merge_ledgers([two], into=one)
    assert answers_in(one) == {"a": "[[1]]"}


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from ledgers import exchange
from longreward.judge.ledger import Ledger
with Ledger(Path(sys.argv[1])) as ledger:
    print("at work", flush=True)
    for n in range(3000):
        ledger.put(exchange(f"run{n}"))
"""


def test_runs_write_to_source_and_target_while_they_are_merged(tmp_path: Path) -> None:
    source, into = tmp_path / "source", tmp_path / "into"
    for path in (source, into):
        with Ledger(path) as ledger:
            ledger.put_many([exchange(f"{path.name}{n}") for n in range(4000)])
    command = [sys.executable, "-c", WRITER]
    writers = [
        subprocess.Popen([*command, path, str(Path(__file__).parent)], stdout=subprocess.PIPE)
        for path in (source, into)
    ]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.readline()
    merge_ledgers([source], into=into)
    assert [writer.wait(60) for writer in writers] == [0, 0]
    merge_ledgers([source], into=into)
    found = answers_in(into)
    assert len(found) == 4000 + 4000 + 3000
    assert verify_ledger(into).is_sound


def test_a_ledger_in_a_folder_that_cannot_be_written_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    source = ledger_of(folder / "ledger.sqlite", {"a": ("[[1]]", 10.0)})
    folder.chmod(0o500)
    try:
        merge_ledgers([source], into=tmp_path / "into")
    finally:
        folder.chmod(0o700)
    assert answers_in(tmp_path / "into") == {"a": "[[1]]"}


def test_attempts_of_two_machines_come_together(tmp_path: Path) -> None:
    """One found no verdict at first; the other's later first attempt gives way, so that the attempts stay in order."""
    one, two = tmp_path / "one", tmp_path / "two"
    with Ledger(one) as ledger:
        ledger.put(replace(exchange("a", "hm"), outcome="unreadable", reason="no verdict"))
        ledger.put(replace(exchange("a", "[[8]]"), attempt=2, temperature=0.95))
    with Ledger(two) as ledger:
        ledger.put(exchange("a", "[[5]]"))
    merge_ledgers([one], into=two)
    with Ledger(two) as ledger:
        assert [(each.attempt, each.reply.text) for each in ledger.find("a")] == [(1, "hm"), (2, "[[8]]")]
