"""Files of labelled items with bad and repeated rows, in several file formats."""

import json

import pytest

from longreward.data.preferences import PairsConfig
from longreward.errors import DataError
from longreward.reward_bench.item_files import limit_items, read_item_files
from longreward.reward_bench.items import Item


def pair(number, **fields):
    return {"prompt": f"Question {number}?", "chosen": "yes", "rejected": "no", **fields}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_bad_and_repeated_rows_are_left_out_with_file_and_line(folder, write_lines):
    write_lines(folder / "a.jsonl", [pair(0), pair(1, rejected="yes"), pair(2)])
    write_lines(folder / "b.jsonl", [pair(2), {"query": "x"}])
    files = read_item_files(["a.jsonl", "b.jsonl"])
    assert [item.query for item in files.items] == ["Question 0?", "Question 2?"]
    assert [(str(row.location), row.kind) for row in files.rejected] == [
        ("a.jsonl, line 2", "bad"),
        ("b.jsonl, line 1", "duplicate"),
        ("b.jsonl, line 2", "bad"),
    ]
    text = files.describe_rejected()
    assert text.startswith("3 of 5 rows are left out (2 bad, 1 repeated). The first:\n")
    assert "  a.jsonl, line 2: both responses are the same\n" in text


def test_broken_lines_do_not_stop_the_file(folder):
    lines = ["{broken", json.dumps(pair(0)), '{"prompt": "a\\ud800"}']
    (folder / "a.jsonl").write_text("\n".join(lines))
    files = read_item_files(["a.jsonl"])
    assert (len(files.items), len(files.rejected)) == (1, 2)
    assert files.rejected[0].reason.startswith("not JSON")


def test_formats_of_files_and_of_containers_can_differ(folder, write_lines):
    from pyarrow import Table, parquet

    write_lines(folder / "pairs.jsonl", [pair(0)])
    rows = [{"id": 1, "prompt": "Q?", "chosen": ["a", "b", "c"], "rejected": ["d", "e", "f"]}]
    (folder / "chat_filtered.json").write_text(json.dumps(rows))
    judged = {"pair_id": "p", "source": "x", "question": "Q?", "response_A": "a", "response_B": "b", "label": "A>B"}
    parquet.write_table(Table.from_pylist([judged]), folder / "gpt.parquet")
    (folder / "p.csv").write_text("prompt,chosen,rejected\nQ?,a,b\n")
    files = read_item_files(["pairs.jsonl", "chat_filtered.json", "gpt.parquet", "p.csv"])
    assert list(files.formats.values()) == ["pairs", "rm-bench", "judgebench", "pairs"]
    assert [item.group for item in files.items] == ["", "chat", "x", ""]


def test_columns_are_read_as_pairs(folder, write_lines):
    write_lines(folder / "a.jsonl", [{"query": "Where?", "chosen": "a", "rejected": "b", "good": "c"}])
    (item,) = read_item_files(["a.jsonl"], columns=PairsConfig(prompt="query", chosen="good")).items
    assert item.responses == ("c", "b")


def test_file_without_items_is_error(folder, write_lines):
    write_lines(folder / "a.jsonl", [pair(1, rejected="yes")])
    with pytest.raises(DataError, match=r"a\.jsonl: no labelled items\. 1 of 1 rows are left out") as error:
        read_item_files(["a.jsonl"])
    assert "line 1: both responses are the same" in str(error.value)


def test_unknown_columns_are_error_with_line(folder, write_lines):
    write_lines(folder / "a.jsonl", [{"text": "a"}])
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: the format is not known from the columns text"):
        read_item_files(["a.jsonl"])


def test_limit_takes_items_of_all_groups_and_keeps_documents_together():
    items = [Item(str(n), "", f"q{n // 2}", ("a", "b"), (1.0, 0.0), "xy"[n >= 50], f"d{n // 2}") for n in range(100)]
    limited = limit_items(items, 20)
    assert len(limited) == 20
    assert [item.id for item in limited] == sorted((item.id for item in limited), key=int)
    assert {item.group for item in limited} == {"x", "y"}
    assert len({item.document for item in limited}) == 10
    assert limit_items(items[::-1], 20)[::-1] == limited
    assert limit_items(items, 1000) == items
