"""The records of human labels, and the folder that holds them.

    data/labels/items.jsonl    what is labelled: texts, stratum and the judge's verdict, which no reviewer sees
    data/labels/labels.jsonl   {"item": "support-3fa…", "reviewer": "anna", "value": "partial", "source": "mlflow"}

Three kinds of question have these values, on the scale of the judge's verdict:

    support      full, partial, none    1, 0.5, 0
    preference   A, tie, B              1, 0, -1
    score        0 to 10                itself
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import model_validator

from longreward.records import DIMENSIONS, Evidence, PaperDimension, Record
from longreward.utils.jsonl import Row, RowError, read_records, shorten, write_rows

Kind = Literal["support", "preference", "score"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Aspect = PaperDimension | Literal["overall"]
"""What a question asks about: a dimension, or `overall`, which is compared with the reward."""
ASPECTS: tuple[Aspect, ...] = (*DIMENSIONS, "overall")
Source = Literal["mlflow", "import"]

WORDS: Mapping[Kind, Mapping[str, float]] = {
    "support": {"full": 1.0, "partial": 0.5, "none": 0.0},
    "preference": {"A": 1.0, "tie": 0.0, "B": -1.0},
}
"""The values of a kind that are words, in the order in which they are shown."""
LEVELS: Mapping[Kind, int] = {"support": 3, "preference": 3, "score": 11}
MAX_SCORE = 10

DEFINITIONS: Mapping[Aspect, str] = {
    "helpfulness": "Is the response relevant to the question, and does it meet the user's purpose and demands?",
    "logicality": "Are the parts of the response consistent with each other, and are its inferences and calculations "
    "correct?",
    "faithfulness": "Does the document support every factual statement of the response?",
    "completeness": "Does the response contain everything in the document that the question asks for?",
    "overall": "All criteria together: helpful, logical, faithful to the document, complete.",
}
SUPPORT_QUESTION = "Does the evidence support the statement?"
SUPPORT_LEVELS = (
    "Full: it says all or nearly all of it. Partial: more than half; a detail is missing or different. None: most of "
    "it is missing or contradicted. Use the evidence alone."
)
"""What the judge's prompt says about the levels."""


class ReviewItem(Record):
    """One thing to label: a statement with its evidence, two responses, or a response in one dimension."""

    id: str
    kind: Kind
    aspect: Aspect
    document_id: str
    """Items of one document are one observation for confidence intervals."""
    context: str
    query: str
    responses: tuple[str, ...]
    """One response; for a preference the responses A and B."""
    response_ids: tuple[str, ...] = ()
    statement: str | None = None
    evidence: tuple[Evidence, ...] = ()
    stratum: str = ""
    stratum_size: int = 0
    """The number of candidates in the stratum that the item was sampled from."""
    judge: str = ""
    verdict: float | None = None
    """The judge's verdict on the scale of the labels; None if it is not known."""

    @model_validator(mode="after")
    def _check_texts(self) -> Self:
        expected = 2 if self.kind == "preference" else 1
        if len(self.responses) != expected:
            raise ValueError(f"a {self.kind} item has {expected} response(s), not {len(self.responses)}")
        if self.kind == "support" and not self.statement:
            raise ValueError("a support item needs a statement")
        if self.kind == "score" and self.aspect == "overall":
            raise ValueError("a score item needs a dimension, not overall")
        return self

    @property
    def shows_document(self) -> bool:
        """Whether a reviewer needs the document: the judge rates helpfulness and logicality without it."""
        return self.kind != "support" and self.aspect not in ("helpfulness", "logicality")

    @property
    def length(self) -> int:
        """Characters of the statement or response; of two responses, how many the first has more than the second."""
        first, second = (*self.responses, "")[:2]
        return len(self.statement) if self.statement is not None else len(first) - len(second)


class Label(Record):
    """One reviewer's answer about one item."""

    item: str
    reviewer: str
    value: float
    comment: str | None = None
    source: Source = "import"


@dataclass(frozen=True)
class LabelSet:
    """The items and the labels of one folder."""

    items: Mapping[str, ReviewItem]
    labels: tuple[Label, ...]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a folder; labels may be missing. Raises DataError for an invalid row, with file and line."""
        items = {item.id: item for item in read_records(items_file(folder), ReviewItem.model_validate)}

        def parse(row: Row) -> Label:
            return label_from_row(row, items)

        path = labels_file(folder)
        labels = tuple(read_records(path, parse)) if path.exists() and path.stat().st_size else ()
        return cls(items, labels)

    def write(self, folder: Path) -> None:
        """Write both files; the same content gives the same bytes."""
        write_rows(items_file(folder), (item.model_dump(exclude_none=True) for item in self.items.values()))
        write_rows(labels_file(folder), (label_to_row(label, self.items[label.item].kind) for label in self.labels))

    def with_items(self, items: Iterable[ReviewItem]) -> "LabelSet":
        """Return the set with these items added; an item that it has stays as it is."""
        return LabelSet({**{item.id: item for item in items}, **self.items}, self.labels)

    def with_labels(self, labels: Iterable[Label]) -> "LabelSet":
        """Return the set with these labels, sorted; a reviewer's newer label replaces the one of the same item."""
        merged = {(label.item, label.reviewer): label for label in (*self.labels, *labels)}
        return LabelSet(self.items, tuple(merged[key] for key in sorted(merged)))

    def by_item(self) -> Mapping[str, Sequence[Label]]:
        """Return the labels of each item that has any."""
        grouped: dict[str, list[Label]] = {}
        for label in self.labels:
            grouped.setdefault(label.item, []).append(label)
        return grouped


def items_file(folder: Path) -> Path:
    """Return the file of items in a folder of labels."""
    return folder / "items.jsonl"


def labels_file(folder: Path) -> Path:
    """Return the file of labels in a folder of labels."""
    return folder / "labels.jsonl"


def label_from_row(row: Row, items: Mapping[str, ReviewItem]) -> Label:
    """Parse a row of `labels.jsonl`; RowError if the item is unknown or has no such value."""
    item = items.get(str(row.get("item")))
    if item is None:
        raise RowError(f"item {shorten(row.get('item'))} is not in items.jsonl")
    return Label.model_validate({**row, "value": parse_value(item.kind, row.get("value"))})


def label_to_row(label: Label, kind: Kind) -> Row:
    """Return a row of `labels.jsonl`, with the value as a word where the kind has words."""
    return {**label.model_dump(exclude_none=True), "value": format_value(kind, label.value)}


def parse_value(kind: Kind, raw: Any) -> float:
    """Return the value of a word or number; RowError names the values that the kind has."""
    words = WORDS.get(kind)
    text = str(raw).strip()
    if words is not None:
        by_word = {word.casefold(): value for word, value in words.items()}
        if text.casefold() in by_word:
            return by_word[text.casefold()]
        raise RowError(f"value {shorten(raw)} is not one of {', '.join(words)}")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if isinstance(raw, bool) or not 0 <= value <= MAX_SCORE:
        raise RowError(f"value {shorten(raw)} is not a number from 0 to {MAX_SCORE}")
    return value


def format_value(kind: Kind, value: float) -> str | float:
    """Return the word of a value; a score stays a number.

    >>> format_value("support", 0.5), format_value("score", 7.0)
    ('partial', 7.0)
    """
    return next((word for word, number in WORDS.get(kind, {}).items() if number == value), value)


def level(kind: Kind, value: float) -> int:
    """Return the category of a value for kappa, from 0; scores are rounded to whole points, halves up.

    >>> level("support", 0.5), level("preference", -1.0), level("score", 6.67), level("score", 2.5)
    (1, 0, 7, 3)
    """
    if kind == "support":
        return round(2 * value)
    return round(value) + 1 if kind == "preference" else math.floor(value + 0.5)
