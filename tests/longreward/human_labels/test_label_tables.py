import json
from pathlib import Path

import pytest
from label_sets import make_labels

from longreward.errors import DataError
from longreward.human_labels.items import LabelSet
from longreward.human_labels.tables import import_labels

EMPTY = LabelSet({}, ())


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_spreadsheet_about_sampled_items(tmp_path: Path) -> None:
    labels = make_labels("support", {"a": (1.0, {}), "b": (0.0, {})})
    path = write(tmp_path / "labels.csv", 'id,answer,note\na,full,\nb,partial,"a, comment"\n')
    columns = {"id": "item", "answer": "value", "note": "comment"}
    result = import_labels(path, labels, reviewer="anna", columns=columns)
    assert [(label.item, label.reviewer, label.value, label.comment) for label in result.labels] == [
        ("a", "anna", 1.0, None),
        ("b", "anna", 0.5, "a, comment"),
    ]
    assert result.items == labels.items


def test_rows_that_bring_their_texts(tmp_path: Path) -> None:
    texts = {"context": "The market opened in 1931.", "query": "When?", "reviewer": "ben"}
    rows = [
        {**texts, "response": "1931", "dimension": "completeness", "score": 9},
        {**texts, "response_a": "1931", "response_b": "1932", "preferred": "A"},
        {
            "query": "When?",
            "response": "1931",
            "statement": "It opened in 1931.",
            "evidence": ["opened in 1931", "a market"],
            "support": "full",
            "reviewer": "ben",
        },
    ]
    path = write(tmp_path / "labels.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    result = import_labels(path, EMPTY, reviewer=None, columns={})
    items = {item.kind: item for item in result.items.values()}
    assert (items["score"].aspect, items["preference"].aspect) == ("completeness", "overall")
    assert items["preference"].responses == ("1931", "1932")
    assert items["support"].context == "opened in 1931\n\na market"
    assert [item.verdict for item in items.values()] == [None, None, None]
    assert len({item.document_id for item in items.values()}) == 2
    assert sorted(label.value for label in result.labels) == [1.0, 1.0, 9.0]
    assert import_labels(path, result, reviewer=None, columns={}) == result


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"item": "zzz", "value": "full"}', "line 1: item 'zzz' is not in items.jsonl; rows about other texts"),
        ('{"item": "a"}', "line 1: value is missing; the row has 'item'"),
        ('{"item": "a", "value": "yes"}', "line 1: value 'yes' is not one of full, partial, none"),
        ('{"query": "q"}', "exactly one of support, preferred, score; it has 'query'"),
        ('{"query": "q", "context": "c", "response": "r", "score": 3}', "dimension is None, expected one of helpful"),
        ('{"query": "q", "context": "c", "score": 3}', "response is missing"),
        ('{"query": " ", "context": "c", "response": "r", "dimension": "logicality", "score": 3}', "query is ' '"),
        ('{"query": "q", "response": "r", "statement": "s", "support": "full"}', "evidence is None, expected a text"),
        ('{"item": "a", "value": "full", "reviewer": ""}', "reviewer is missing; add the column, or name"),
    ],
)
def test_invalid_rows(tmp_path: Path, text: str, reason: str) -> None:
    labels = make_labels("support", {"a": (1.0, {})})
    with pytest.raises(DataError) as error:
        import_labels(write(tmp_path / "x.jsonl", text + "\n"), labels, reviewer=None, columns={})
    assert reason in str(error.value)


def test_unknown_column_and_file_type(tmp_path: Path) -> None:
    labels = make_labels("support", {"a": (1.0, {})})
    path = write(tmp_path / "labels.csv", "item,value\na,full\n")
    with pytest.raises(DataError, match="line 2: rating is missing; the row has 'item', 'value'"):
        import_labels(path, labels, reviewer="anna", columns={"rating": "value"})
    with pytest.raises(DataError, match="is neither CSV"):
        import_labels(tmp_path / "labels.xlsx", labels, reviewer="anna", columns={})
