"""Small sets of items and labels."""

from typing import Any

from longreward.human_labels.items import Kind, Label, LabelSet, ReviewItem
from longreward.records import Evidence

CONTEXT = "Keld was founded in 1905 by Ann Lee. The market opened in 1931."


def make_item(id: str, kind: Kind = "support", **changes: Any) -> ReviewItem:
    """Return an item about a document of its own."""
    values: dict[str, Any] = {
        "id": id,
        "kind": kind,
        "aspect": {"support": "faithfulness", "preference": "overall", "score": "completeness"}[kind],
        "document_id": f"document of {id}",
        "context": CONTEXT,
        "query": "Who founded Keld?",
        "responses": ("Ann Lee.", "Bo Ray.") if kind == "preference" else ("Ann Lee founded Keld.",),
        "judge": "j",
    }
    if kind == "support":
        text = "Keld was founded in 1905 by Ann Lee."
        values |= {"statement": "Ann Lee founded Keld.", "evidence": (Evidence(start=0, end=len(text), text=text),)}
    return ReviewItem.model_validate(values | changes)


def make_labels(kind: Kind, rows: dict[str, tuple[float | None, dict[str, float]]], **changes: Any) -> LabelSet:
    """Return a set from {item: (verdict of the judge, {reviewer: label})}."""
    items = {id: make_item(id, kind, verdict=verdict, **changes) for id, (verdict, _) in rows.items()}
    labels = [
        Label(item=id, reviewer=reviewer, value=value)
        for id, (_, values) in rows.items()
        for reviewer, value in values.items()
    ]
    return LabelSet(items, ()).with_labels(labels)
