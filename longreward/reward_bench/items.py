"""Labelled preferences: a query about a document, responses to it, and how good each is.

    {"id": "7", "context": "…", "query": "…", "responses": ["…", "…", "…"], "labels": [3, 1, 2], "group": "LongQA"}
    {"id": "8", "context": "…", "query": "…", "chosen": "…", "rejected": "…"}

Labels are numbers of any scale on which higher is better; the second form is a pair, `[1, 0]`. `group` and `document`
may be left out: results are also told by group, and intervals draw documents, so that what was asked about one text
stays together.
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
        """The places of the responses with the highest label."""
        return frozenset(place for place, label in enumerate(self.labels) if label == max(self.labels))


def read_items(path: Path) -> Iterator[Item]:
    """The items of a file; DataError, naming file and line, at the first row that is none or comes twice."""
    seen: set[str] = set()

    def once(row: Row) -> Item:
        item = parse_item(row)
        if item.id in seen:
            raise RowError(f"id {item.id!r} comes twice")
        seen.add(item.id)
        return item

    return read_records(path, once)


def write_items(path: Path, items: Iterable[Item]) -> int:
    """Writes them in the first form; how many."""
    return write_rows(path, ({**vars(item)} for item in items))


def parse_item(row: Row) -> Item:
    """A row of either form; RowError says what is wrong with it."""
    if isinstance(row.get("id"), bool) or not isinstance(row.get("id"), str | int):
        raise RowError("id is missing, or no text or whole number")
    context, query = _text(row, "context"), _text(row, "query")
    responses, labels = _pair(row) if "chosen" in row or "rejected" in row else _listed(row)
    if len(set(labels)) < 2:
        raise RowError("all labels are the same, so that nothing can be told apart; leave this row out")
    return Item(
        id=str(row["id"]),
        context=context,
        query=query,
        responses=responses,
        labels=labels,
        group=str(row.get("group") or ""),
        document=str(row.get("document") or document_id(context)),
    )


def to_records(item: Item) -> tuple[Example, list[Response]]:
    """The item as a prompt with its responses, which is what rewards are given to."""
    example = Example(id=item.id, document_id=item.document, context=item.context, query=item.query)
    return example, [
        Response(id=f"{item.id}-{number}", example_id=item.id, query=item.query, text=text)
        for number, text in enumerate(item.responses)
    ]


def _pair(row: Row) -> tuple[tuple[str, ...], tuple[float, ...]]:
    if "responses" in row or "labels" in row:
        raise RowError("has chosen or rejected and responses or labels; give one form")
    return (_text(row, "chosen", empty=True), _text(row, "rejected", empty=True)), (1.0, 0.0)


def _listed(row: Row) -> tuple[tuple[str, ...], tuple[float, ...]]:
    responses, labels = _list(row, "responses"), _list(row, "labels")
    if not all(isinstance(response, str) for response in responses):
        raise RowError("responses must be a list of texts")
    if not all(_is_number(label) for label in labels):
        raise RowError(f"labels must be a list of numbers, higher for better: {labels}")
    if len(responses) != len(labels):
        raise RowError(f"{len(responses)} responses and {len(labels)} labels; each response needs one")
    return tuple(responses), tuple(float(label) for label in labels)


def _list(row: Row, name: str) -> list[Any]:
    found = row.get(name)
    if not isinstance(found, list):
        raise RowError(f"{name} is missing or no list (a pair has chosen and rejected in their place)")
    return found


def _text(row: Row, name: str, *, empty: bool = False) -> str:
    found = row.get(name)
    if not isinstance(found, str):
        raise RowError(f"{name} is missing or no text")
    if not empty and not found.strip():
        raise RowError(f"{name} is empty")
    return found


def _is_number(label: Any) -> bool:
    return isinstance(label, int | float) and not isinstance(label, bool) and math.isfinite(label)


# Long-RewardBench (LCM-Lab) as items: a file a task (`LongQA.jsonl`, `Summ.jsonl`, …), pairs and lists in one.
#
#     {"prompt_template": [{"role": "user", "content": "…"}], "question": "…", "tasktype": "PairWise",
#      "chosen": "…", "rejected": "…", …}
#     {"prompt_template": […], "tasktype": "BestOfN", "candidates": ["…", "…", "…"], "candidates_score": [0.9, 0.4, 0…
#
# Their prompt holds document and question in one text. Where the row names the question and the text holds it, the
# context is the rest; else the query is what follows the last blank line, as LongReward cuts LongBench's prompts. Their
# own evaluation takes candidates as given best first, which is what they count as where no scores are given.


def read_long_rewardbench(path: Path) -> Iterator[Item]:
    """The items of one task's file, in its group; DataError, naming file and line, at the first row that is none."""
    numbers = count()
    return read_records(path, lambda row: _item(row, f"{path.stem}-{next(numbers)}", path.stem))


def _item(row: Row, name: str, group: str) -> Item:
    context, query = _parted(_prompt(row), row.get("question"))
    known: Row = {"id": name, "context": context, "query": query, "group": group}
    if row.get("tasktype") == "BestOfN":
        candidates = row.get("candidates")
        if not isinstance(candidates, list):
            raise RowError("candidates is missing or no list, and tasktype is BestOfN")
        scores = row.get("candidates_score") or list(range(len(candidates), 0, -1))
        return parse_item({**known, "responses": candidates, "labels": scores})
    return parse_item({**known, "chosen": row.get("chosen"), "rejected": row.get("rejected")})


def _prompt(row: Row) -> str:
    messages: Any = row.get("prompt_template")
    if not isinstance(messages, list) or not all(
        isinstance(message, dict) and isinstance(message.get("content"), str) for message in messages
    ):
        raise RowError("prompt_template is missing or no list of messages with a content each")
    return "\n\n".join(message["content"] for message in messages)


def _parted(prompt: str, question: Any) -> tuple[str, str]:
    if isinstance(question, str) and question.strip() and question in prompt:
        before, _, behind = prompt.rpartition(question)
        return f"{before.rstrip()}\n\n{behind.lstrip()}".strip(), question.strip()
    context, blank, query = prompt.rstrip().rpartition("\n\n")
    if not blank:
        raise RowError("its prompt has neither the question that it names nor a blank line before one")
    return context, query
