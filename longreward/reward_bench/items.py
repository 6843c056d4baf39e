"""Labelled items: a query about a document, responses to it, and how good each response is.

    {"id": "7", "context": "…", "query": "…", "responses": ["…", "…", "…"], "labels": [3, 1, 2], "group": "LongQA"}
    {"id": "8", "context": "…", "query": "…", "chosen": "…", "rejected": "…"}

Labels are numbers of any scale on which higher is better; the second form is a pair, `[1, 0]`. `group` and `document`
are optional: results are also reported by group, and intervals resample documents, so that items about one text stay
together.

Files of Long-RewardBench (LCM-Lab) are read as well. Each holds one task (`LongQA.jsonl`, `Summ.jsonl`, …) with pairs
and lists:

    {"prompt_template": [{"role": "user", "content": "…"}], "question": "…", "tasktype": "PairWise",
     "chosen": "…", "rejected": "…", …}
    {"prompt_template": […], "tasktype": "BestOfN", "candidates": ["…", "…"], "candidates_score": [0.9, 0.4]}

Their prompt holds document and question in one text. If the row names the question and the text contains it, the
context is the rest; else the query is what follows the last blank line, as LongReward splits LongBench's prompts. Their
evaluation code takes candidates as sorted from best to worst, so that order is the label where there are no scores.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from longreward.data.formats import document_id
from longreward.records import Example, Response
from longreward.utils.jsonl import Row, RowError, read_records, write_rows


@dataclass(frozen=True)
class Item:
    """A pair, or a list of n responses of which at least two differ in their labels."""

    id: str
    context: str
    query: str
    responses: tuple[str, ...]
    labels: tuple[float, ...]
    group: str = ""
    document: str = ""

    @property
    def best(self) -> frozenset[int]:
        """The indices of the responses with the highest label."""
        return frozenset(index for index, label in enumerate(self.labels) if label == max(self.labels))


def read_items(path: Path) -> Iterator[Item]:
    """Read a file; DataError with file and line at the first row that is not an item or repeats an id."""
    ids: set[str] = set()

    def parse_unique(row: Row) -> Item:
        item = parse_item(row)
        if item.id in ids:
            raise RowError(f"id {item.id!r} occurs twice")
        ids.add(item.id)
        return item

    return read_records(path, parse_unique)


def write_items(path: Path, items: Iterable[Item]) -> int:
    """Write items in the first form; return their number."""
    return write_rows(path, ({**vars(item)} for item in items))


def parse_item(row: Row) -> Item:
    """Parse a row of either form; RowError names what is wrong with it."""
    # bool is a subclass of int
    if isinstance(row.get("id"), bool) or not isinstance(row.get("id"), str | int):
        raise RowError("id is missing, or not a text or whole number")
    context, query = _text(row, "context"), _text(row, "query")
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
        id=str(row["id"]),
        context=context,
        query=query,
        responses=tuple(responses),
        labels=tuple(map(float, labels)),
        group=str(row.get("group") or ""),
        # Without a name, equal contexts are the same document.
        document=str(row.get("document") or document_id(context)),
    )


def to_records(item: Item) -> tuple[Example, list[Response]]:
    """Return the item as a prompt with its responses, which is what rewards are computed for."""
    example = Example(id=item.id, document_id=item.document, context=item.context, query=item.query)
    return example, [
        Response(id=f"{item.id}-{number}", example_id=item.id, query=item.query, text=text)
        for number, text in enumerate(item.responses)
    ]


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


def read_long_rewardbench(path: Path) -> Iterator[Item]:
    """Read one task's file of Long-RewardBench, with the file's name as group; DataError as `read_items`."""
    numbers = count()
    return read_records(path, lambda row: _parse_long_rewardbench(row, f"{path.stem}-{next(numbers)}", path.stem))


def _parse_long_rewardbench(row: Row, id_: str, group: str) -> Item:
    messages: Any = row.get("prompt_template")
    if not isinstance(messages, list) or not all(
        isinstance(message, dict) and isinstance(message.get("content"), str) for message in messages
    ):
        raise RowError("prompt_template is missing or not a list of messages with a content each")
    prompt = "\n\n".join(message["content"] for message in messages)
    question = row.get("question")
    if isinstance(question, str) and question.strip() and question in prompt:
        before, _, after = prompt.rpartition(question)
        context, query = f"{before.rstrip()}\n\n{after.lstrip()}".strip(), question.strip()
    else:
        context, blank_line, query = prompt.rstrip().rpartition("\n\n")
        if not blank_line:
            raise RowError("its prompt has neither the question that it names nor a blank line before one")
    item: Row = {"id": id_, "context": context, "query": query, "group": group}
    if row.get("tasktype") != "BestOfN":
        return parse_item({**item, "chosen": row.get("chosen"), "rejected": row.get("rejected")})
    candidates = row.get("candidates")
    if not isinstance(candidates, list):
        raise RowError("candidates is missing or not a list, and tasktype is BestOfN")
    scores = row.get("candidates_score") or list(range(len(candidates), 0, -1))
    return parse_item({**item, "responses": candidates, "labels": scores})
