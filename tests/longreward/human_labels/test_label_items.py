from pathlib import Path

import pytest
from label_sets import make_item, make_labels

from longreward.errors import DataError
from longreward.human_labels.items import Label, LabelSet, items_file, labels_file, parse_value
from longreward.utils.jsonl import RowError


def test_written_set_is_read_again(tmp_path: Path) -> None:
    labels = make_labels("support", {"a": (1.0, {"anna": 0.5, "ben": 1.0}), "b": (0.0, {})})
    labels.write(tmp_path)
    assert LabelSet.read(tmp_path) == labels
    assert '"value": "partial"' in labels_file(tmp_path).read_text()
    before = labels_file(tmp_path).read_bytes()
    labels.with_labels(reversed(labels.labels)).write(tmp_path)
    assert labels_file(tmp_path).read_bytes() == before


def test_set_without_labels_is_read(tmp_path: Path) -> None:
    labels = make_labels("score", {"a": (7.0, {})})
    labels.write(tmp_path)
    assert LabelSet.read(tmp_path) == labels


def test_newer_label_of_a_reviewer_replaces_the_older() -> None:
    labels = make_labels("support", {"a": (1.0, {"anna": 0.5, "ben": 1.0})})
    changed = labels.with_labels([Label(item="a", reviewer="anna", value=0.0)])
    assert [(label.reviewer, label.value) for label in changed.labels] == [("anna", 0.0), ("ben", 1.0)]


def test_items_that_exist_stay() -> None:
    labels = make_labels("support", {"a": (1.0, {})})
    changed = labels.with_items([make_item("a", verdict=0.0), make_item("b")])
    assert [(item.id, item.verdict) for item in changed.items.values()] == [("a", 1.0), ("b", None)]


@pytest.mark.parametrize(
    ("kind", "raw", "value"),
    [("support", "Full", 1.0), ("support", " none ", 0.0), ("preference", "b", -1.0), ("score", "7.5", 7.5)],
)
def test_values(kind: str, raw: str, value: float) -> None:
    assert parse_value(kind, raw) == value  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "raw", "reason"),
    [
        ("support", "yes", "'yes' is not one of full, partial, none"),
        ("preference", 1, "1 is not one of A, tie, B"),
        ("score", 11, "11 is not a number from 0 to 10"),
        ("score", "nan", "'nan' is not a number"),
        ("score", True, "True is not a number"),
    ],
)
def test_invalid_values(kind: str, raw: object, reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        parse_value(kind, raw)  # type: ignore[arg-type]


def test_invalid_files_name_line_and_reason(tmp_path: Path) -> None:
    make_labels("support", {"a": (1.0, {})}).write(tmp_path)
    labels_file(tmp_path).write_text('{"item": "a", "reviewer": "anna", "value": "full"}\n{"item": "z"}\n')
    with pytest.raises(DataError, match=r"labels\.jsonl, line 2: item 'z' is not in items\.jsonl"):
        LabelSet.read(tmp_path)
    items_file(tmp_path).write_text(
        make_item("a", "preference").model_dump_json().replace('"Bo Ray."', '""', 1) + "\n{}\n"
    )
    with pytest.raises(DataError, match=r"items\.jsonl, line 2: id: Field required"):
        LabelSet.read(tmp_path)


def test_items_check_their_texts() -> None:
    with pytest.raises(ValueError, match="a preference item has 2 response"):
        make_item("a", "preference", responses=("one",))
    with pytest.raises(ValueError, match="needs a statement"):
        make_item("a", "support", statement=None)
    with pytest.raises(ValueError, match="needs a dimension, not overall"):
        make_item("a", "score", aspect="overall")
