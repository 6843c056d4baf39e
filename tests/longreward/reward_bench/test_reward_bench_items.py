"""Labelled items in and out, in their own form."""

import pytest

from longreward.reward_bench.item_files import read_item_files
from longreward.reward_bench.items import Item, parse_item, write_items
from longreward.utils.jsonl import RowError

PAIR = {"id": 8, "context": "The town.", "query": "Where?", "chosen": "North.", "rejected": ""}
LIST = {"id": "7", "context": "The river.", "query": "What?", "responses": ["a", "b", "c"], "labels": [3, 1, 3.5]}


def test_pairs_and_lists():
    pair = parse_item(PAIR)
    assert (pair.id, pair.responses, pair.labels, pair.group) == ("8", ("North.", ""), (1.0, 0.0), "")
    listed = parse_item({**LIST, "group": "LongQA", "document": "d1"})
    assert listed == Item("7", "The river.", "What?", ("a", "b", "c"), (3.0, 1.0, 3.5), "LongQA", "d1")
    assert listed.best == {2}


def test_items_with_same_context_share_document():
    first, second, third = map(parse_item, (PAIR, {**PAIR, "id": 9}, LIST))
    assert first.document == second.document != third.document


def test_missing_id_is_derived_from_texts():
    row = {"query": "Where?", "chosen": "North.", "rejected": "South."}
    assert parse_item(row).id == parse_item({**row, "group": "x"}).id == "6f05aee6f8b4243b"
    assert parse_item({**row, "rejected": "East."}).id != parse_item(row).id


def test_items_without_context_have_document_of_their_query():
    first, second, other = (
        parse_item({"id": number, "query": query, "chosen": "a", "rejected": "b"})
        for number, query in enumerate(("Where?", "Where?", "When?"))
    )
    assert (first.context, first.document) == ("", second.document)
    assert other.document != first.document


def test_written_items_read_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    items = [parse_item(PAIR), parse_item({**LIST, "context": None, "task": "tied"}, benchmark="rewardbench-2")]
    assert write_items(tmp_path / "items.jsonl", items) == 2
    assert read_item_files(["items.jsonl"]).items == items


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**PAIR, "id": True}, "id is not a text or whole number"),
        ({**PAIR, "context": " "}, "context is empty"),
        ({**PAIR, "rejected": None}, "rejected is missing or not a text"),
        ({**PAIR, "labels": [1, 0]}, "use one form"),
        ({**LIST, "responses": "a"}, "responses is missing or not a list"),
        ({**LIST, "responses": ["a", "b", 3]}, "responses must be a list of texts"),
        ({**LIST, "labels": [1, 2]}, "3 responses and 2 labels; each response needs one"),
        ({**LIST, "labels": [1, "2", 3]}, "labels must be a list of numbers, higher for better"),
        ({**LIST, "labels": [1, float("nan"), 3]}, "labels must be a list of numbers"),
        ({**LIST, "labels": [2, 2, 2]}, "all labels are the same"),
    ],
)
def test_invalid_row_is_error_with_reason(row, reason):
    with pytest.raises(RowError) as error:
        parse_item(row)
    assert reason in str(error.value)
