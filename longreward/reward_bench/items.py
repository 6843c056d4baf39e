"""Labelled items: a query, usually about a document, responses to it, and how good each response is.

    {"id": "7", "context": "…", "query": "…", "responses": ["…", "…", "…"], "labels": [3, 1, 2], "group": "LongQA"}
    {"id": "8", "context": "…", "query": "…", "chosen": "…", "rejected": "…"}

Labels are numbers of any scale on which higher is better; the second form is a pair, `[1, 0]`. All other fields are
optional: without `id` an item is named by a hash of its texts, without `context` it has no document, results are also
reported by `group`, intervals resample documents, so that items with the same `document` stay together, and `rubric` is
for the optional dimension.
"""

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longreward.data.formats import document_id, parse_rubric, rubric_to_row
from longreward.records import Example, Response, RubricItem
from longreward.utils.jsonl import Row, RowError, write_rows

ID_CHARACTERS = 16


@dataclass(frozen=True)
class Item:
    """A pair, or a list of n responses of which at least two differ in their labels."""

    id: str
    context: str
    """Empty: the query is about no document."""
    query: str
    responses: tuple[str, ...]
    labels: tuple[float, ...]
    group: str = ""
    document: str = ""
    benchmark: str = ""
    """The public benchmark that the item belongs to, whose own measures are then computed."""
    task: str = ""
    """The kind of item within its benchmark, where the benchmark's measures distinguish some."""
    rubric: tuple[RubricItem, ...] = ()

    @property
    def best(self) -> frozenset[int]:
        """The indices of the responses with the highest label."""
        return frozenset(index for index, label in enumerate(self.labels) if label == max(self.labels))


def write_items(path: Path, items: Iterable[Item]) -> int:
    """Write items in the first form; return their number."""
    return write_rows(path, map(_item_to_row, items))


def _item_to_row(item: Item) -> Row:
    row = {**vars(item), "context": item.context or None, "rubric": rubric_to_row(item.rubric)}
    return row if item.rubric else {name: value for name, value in row.items() if name != "rubric"}


def parse_item(row: Row, *, benchmark: str = "") -> Item:
    """Parse a row of either form; RowError names what is wrong with it."""
    context = "" if row.get("context") is None else _text(row, "context")
    query = _text(row, "query")
    if "chosen" in row or "rejected" in row:
        if "responses" in row or "labels" in row:
            raise RowError("mixes chosen/rejected with responses/labels; use one form")
        responses = [_text(row, "chosen", allow_empty=True), _text(row, "rejected", allow_empty=True)]
        labels: list[Any] = [1.0, 0.0]
    else:
        responses, labels = _list(row, "responses"), _list(row, "labels")
    if not all(isinstance(response, str) for response in responses):
        raise RowError("responses must be a list of texts")
    if not all(type(label) in (int, float) and math.isfinite(label) for label in labels):
        raise RowError(f"labels must be a list of numbers, higher for better: {labels}")
    if len(responses) != len(labels):
        raise RowError(f"{len(responses)} responses and {len(labels)} labels; each response needs one")
    if len(set(labels)) < 2:
        raise RowError("all labels are the same, so that there is nothing to compare; leave this row out")
    return Item(
        id=_parse_id(row.get("id"), context, query, responses),
        context=context,
        query=query,
        responses=tuple(responses),
        labels=tuple(map(float, labels)),
        group=str(row.get("group") or ""),
        # Without a name, equal contexts are the same document.
        document=str(row.get("document") or document_id(context or query)),
        benchmark=benchmark or str(row.get("benchmark") or ""),
        task=str(row.get("task") or ""),
        rubric=parse_rubric(row.get("rubric")),
    )


def to_records(item: Item) -> tuple[Example, list[Response]]:
    """Return the item as a prompt with its responses, which is what rewards are computed for."""
    example = Example(id=item.id, document_id=item.document, context=item.context, query=item.query, rubric=item.rubric)
    return example, [
        Response(id=f"{item.id}-{number}", example_id=item.id, query=item.query, text=text)
        for number, text in enumerate(item.responses)
    ]


def _parse_id(value: object, *texts: object) -> str:
    if value is None:  # the same on every machine and in every order of the rows
        return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:ID_CHARACTERS]
    # bool is a subclass of int
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise RowError("id is not a text or whole number; leave it out to derive it from the texts")
    return str(value)


def _list(row: Row, name: str) -> list[Any]:
    value = row.get(name)
    if not isinstance(value, list):
        raise RowError(f"{name} is missing or not a list (a pair has chosen and rejected instead)")
    return value


def _text(row: Row, name: str, *, allow_empty: bool = False) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise RowError(f"{name} is missing or not a text")
    if not allow_empty and not value.strip():
        raise RowError(f"{name} is empty")
    return value
