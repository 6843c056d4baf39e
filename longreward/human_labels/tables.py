"""Read labels that were made elsewhere: CSV of a spreadsheet, or JSON lines of another tool.

Rows about items of `items.jsonl` need `item` and `value`. Other rows bring their texts:

    {"context": "…", "query": "…", "response": "…", "dimension": "completeness", "score": 7}
    {"context": "…", "query": "…", "response_a": "…", "response_b": "…", "dimension": "overall", "preferred": "A"}
    {"query": "…", "response": "…", "statement": "…", "evidence": ["…", "…"], "support": "partial"}

`reviewer`, `comment` and `document` are optional. An item of the second form has no verdict of the judge until
`longreward review report --judge` or the gate asks for it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from longreward.data.csv_reader import read_csv
from longreward.data.formats import document_id
from longreward.errors import DataError
from longreward.human_labels.items import ASPECTS, Kind, Label, LabelSet, ReviewItem, Source, parse_value
from longreward.records import Evidence
from longreward.utils.jsonl import Row, RowError, error_reason, missing_key, read_rows, shorten

VALUE_COLUMNS: Mapping[str, Kind] = {"support": "support", "preferred": "preference", "score": "score"}
MAX_CSV_RECORD = 64 * 2**20


def import_labels(
    path: Path, labels: LabelSet, *, reviewer: str | None, columns: Mapping[str, str], source: Source = "import"
) -> LabelSet:
    """Return the set with the labels of a file, and the items that they bring.

    Args:
        reviewer: The reviewer of rows without one.
        columns: Our names by the names in the file, such as {"rating": "score"}.

    Raises:
        DataError: A row is invalid (with file, line and reason), or a column does not exist.
    """
    added: list[Label] = []
    for number, row in _rows(path):
        try:
            if isinstance(row, RowError):
                raise row
            if missing := [name for name in columns if name not in row]:
                raise missing_key(missing[0], row)
            renamed = {columns.get(name, name): value for name, value in row.items()}
            item, value = _parse_row(renamed, labels)
            name = str(renamed.get("reviewer") or reviewer or "").strip()
            if not name:
                raise RowError("reviewer is missing; add the column, or name the reviewer with --reviewer")
            comment = renamed.get("comment")
            labels = labels.with_items([item])
            added.append(
                Label(
                    item=item.id,
                    reviewer=name,
                    value=value,
                    comment=None if comment is None else str(comment),
                    source=source,
                )
            )
        except (RowError, ValidationError) as error:
            raise DataError(f"{path}, line {number}: {error_reason(error)}") from None
    return labels.with_labels(added)


def _rows(path: Path) -> Iterator[tuple[int, Row | RowError]]:
    if path.suffix.lower() == ".csv":
        return read_csv(path, max_record_bytes=MAX_CSV_RECORD)
    if path.suffix.lower() in (".jsonl", ".ndjson", ".gz", ".zst"):
        return read_rows(path)
    raise DataError(f"{path} is neither CSV (.csv) nor JSON lines (.jsonl); save the table as one of them")


def _parse_row(row: Row, labels: LabelSet) -> tuple[ReviewItem, float]:
    if row.get("item") is not None:
        item = labels.items.get(str(row["item"]))
        if item is None:
            raise RowError(
                f"item {shorten(row['item'])} is not in items.jsonl; rows about other texts need query, response, … "
                "in place of item"
            )
        if "value" not in row:
            raise missing_key("value", row)
        return item, parse_value(item.kind, row["value"])
    present = [name for name in VALUE_COLUMNS if row.get(name) is not None]
    if len(present) != 1:
        raise RowError(
            f"a row needs item and value, or exactly one of {', '.join(VALUE_COLUMNS)}; it has "
            f"{', '.join(map(shorten, row)) or 'no keys'}"
        )
    kind = VALUE_COLUMNS[present[0]]
    return _item(kind, row), parse_value(kind, row[present[0]])


def _item(kind: Kind, row: Row) -> ReviewItem:
    names = ("response_a", "response_b") if kind == "preference" else ("response",)
    responses = tuple(_text(row, name) for name in names)
    query = _text(row, "query")
    aspect = "faithfulness" if kind == "support" else _aspect(kind, row)
    statement = _text(row, "statement") if kind == "support" else None
    passages = _passages(row.get("evidence")) if kind == "support" else ()
    # A statement is rated by its evidence alone.
    context = "\n\n".join(passages) if kind == "support" and row.get("context") is None else _text(row, "context")
    identity = json.dumps([kind, aspect, context, query, responses, statement, passages])
    return ReviewItem(
        id=f"{kind}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}",
        kind=kind,
        aspect=aspect,
        document_id=str(row.get("document") or document_id(context)),
        context=context,
        query=query,
        responses=responses,
        statement=statement,
        evidence=tuple(_evidence(passage, context) for passage in passages),
    )


def _aspect(kind: Kind, row: Row) -> Any:
    aspect = row.get("dimension") or ("overall" if kind == "preference" else None)
    if aspect not in ASPECTS:
        raise RowError(f"dimension is {shorten(aspect)}, expected one of {', '.join(ASPECTS)}")
    return aspect


def _passages(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):  # a spreadsheet has one cell
        value = [value]
    if not isinstance(value, list) or not value or not all(isinstance(passage, str) and passage for passage in value):
        raise RowError(f"evidence is {shorten(value)}, expected a text or a list of texts")
    return tuple(value)


def _evidence(passage: str, context: str) -> Evidence:
    """Return the passage with its position; 0 if the document does not contain it literally."""
    start = max(context.find(passage), 0)
    return Evidence(start=start, end=start + len(passage), text=passage)


def _text(row: Row, key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise missing_key(key, row) if value is None else RowError(f"{key} is {shorten(value)}, expected a text")
    return value
