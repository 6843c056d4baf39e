"""Labelled items in and out."""

import pytest

from longreward.errors import DataError
from longreward.reward_bench.items import Item, read_items, read_long_rewardbench, write_items

PAIR = {"id": 8, "context": "The town.", "query": "Where?", "chosen": "North.", "rejected": ""}
LIST = {"id": "7", "context": "The river.", "query": "What?", "responses": ["a", "b", "c"], "labels": [3, 1, 3.5]}


def test_read_pairs_and_lists(tmp_path, write_lines):
    rows = [PAIR, {**LIST, "group": "LongQA", "document": "d1"}]
    pair, listed = read_items(write_lines(tmp_path / "items.jsonl", rows))
    assert (pair.id, pair.responses, pair.labels, pair.group) == ("8", ("North.", ""), (1.0, 0.0), "")
    assert listed == Item("7", "The river.", "What?", ("a", "b", "c"), (3.0, 1.0, 3.5), "LongQA", "d1")
    assert listed.best == {2}


def test_items_with_same_context_share_document(tmp_path, write_lines):
    rows = [PAIR, {**PAIR, "id": 9}, LIST]
    first, second, third = read_items(write_lines(tmp_path / "items.jsonl", rows))
    assert first.document == second.document != third.document


def test_written_items_read_back(tmp_path, write_lines):
    items = list(read_items(write_lines(tmp_path / "items.jsonl", [PAIR, LIST])))
    assert write_items(tmp_path / "again.jsonl", items) == 2
    assert list(read_items(tmp_path / "again.jsonl")) == items


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**PAIR, "id": True}, "id is missing, or not a text or whole number"),
        ({**PAIR, "context": " "}, "context is empty"),
        ({**PAIR, "rejected": None}, "rejected is missing or not a text"),
        ({**PAIR, "labels": [1, 0]}, "use one form"),
        ({**LIST, "responses": "a"}, "responses is missing or not a list"),
        ({**LIST, "responses": ["a", "b", 3]}, "responses must be a list of texts"),
        ({**LIST, "labels": [1, 2]}, "3 responses and 2 labels; each response needs one"),
        ({**LIST, "labels": [1, "2", 3]}, "labels must be a list of numbers, higher for better"),
        ({**LIST, "labels": [1, float("nan"), 3]}, "labels must be a list of numbers"),
        ({**LIST, "labels": [2, 2, 2]}, "all labels are the same"),
        (LIST, "id '7' occurs twice"),
    ],
)
def test_invalid_row_is_error_with_line_and_reason(tmp_path, write_lines, row, reason):
    path = write_lines(tmp_path / "items.jsonl", [LIST, row])
    with pytest.raises(DataError, match="line 2: ") as error:
        list(read_items(path))
    assert reason in str(error.value)


def test_long_rewardbench_rows_become_items_grouped_by_file(tmp_path, write_lines):
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Read: the town.\n\nWhere?"}]
    rows = [
        {"prompt_template": prompt, "question": None, "tasktype": "PairWise", "chosen": "a", "rejected": "b"},
        {"prompt_template": prompt, "question": "the town.", "chosen": "a", "rejected": "b"},
        {"prompt_template": prompt, "tasktype": "BestOfN", "candidates": ["a", "b"], "candidates_score": [0.1, 0.7]},
        {"prompt_template": prompt, "tasktype": "BestOfN", "candidates": ["a", "b", "c"]},
    ]
    pair, inside, scored, ordered = read_long_rewardbench(write_lines(tmp_path / "LongQA.jsonl", rows))
    assert (pair.id, pair.group, pair.query) == ("LongQA-0", "LongQA", "Where?")
    assert pair.context == "Be brief.\n\nRead: the town."
    assert (inside.context, inside.query) == ("Be brief.\n\nRead:\n\nWhere?", "the town.")
    assert scored.labels == (0.1, 0.7)
    assert ordered.labels == (3.0, 2.0, 1.0)  # best first


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt_template": "Where?"}, "prompt_template is missing or not a list of messages"),
        ({"prompt_template": [{"content": "Where?"}], "chosen": "a", "rejected": "b"}, "nor a blank line before one"),
        ({"prompt_template": [{"content": "The town.\n\nWhere?"}], "tasktype": "BestOfN"}, "candidates is missing"),
    ],
)
def test_incomplete_long_rewardbench_row_is_error(tmp_path, write_lines, row, reason):
    with pytest.raises(DataError, match=r"Summ\.jsonl, line 1: ") as error:
        list(read_long_rewardbench(write_lines(tmp_path / "Summ.jsonl", [row])))
    assert reason in str(error.value)
