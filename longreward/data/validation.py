"""Records as examples, each checked, with those left out that came before.

What is remembered of each record: its name, a hash of its question and text, and a name for its text.
"""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

from pydantic import ValidationError

from longreward.data.columns import ColumnsConfig, map_columns
from longreward.data.formats import document_id, example_from_row, hash_words, is_blank
from longreward.data.source import Source, SourceLocation
from longreward.records import Example
from longreward.utils.jsonl import Row, RowError, error_reason


class Refused(NamedTuple):
    """A record that is kept out."""

    idx: str | None
    reason: str
    duplicate: bool = False
    held_out: bool = False


def validate_examples(source: Source, columns: ColumnsConfig) -> Iterator[tuple[SourceLocation, Example | Refused]]:
    """Each record, or why it is refused: bad form, an idx that was used before, or the same query on the same text.

    A bad record has its number too, so that mending it renames no other one.
    """
    place_of_id: dict[str, SourceLocation] = {}
    place_of_content: dict[bytes, SourceLocation] = {}
    document_of_text: dict[str, str] = {}
    for number, (place, row) in enumerate(source.rows()):
        try:
            example = _example(row, columns, number)
        except (RowError, ValidationError) as error:
            yield place, Refused(_idx(row, columns, number), error_reason(error))
            continue
        text = document_id(example.context)
        content = hashlib.sha256(f"{text}\0{hash_words(example.query).hexdigest()}".encode()).digest()
        if first := place_of_content.get(content):
            reason = f"the same query on the same text as {first.within(place.file)}"
            yield place, Refused(example.id, reason, duplicate=True)
        elif first := place_of_id.get(example.id):
            reason = f"idx {example.id} stands in {first.within(place.file)} already, with other content"
            yield place, Refused(example.id, reason)
        else:
            place_of_id[example.id] = place_of_content[content] = place
            # One text under two document names must not end up on two sides: the first name holds for both.
            document = document_of_text.setdefault(text, example.document_id)
            yield place, example.model_copy(update={"document_id": document})


def _example(row: Row | RowError, columns: ColumnsConfig, number: int) -> Example:
    if isinstance(row, RowError):
        raise row
    example = example_from_row(map_columns(columns, row, number=number))
    if is_blank(example.context):
        raise RowError("context is empty")
    if example.answer is not None and is_blank(example.answer):
        raise RowError("answer is empty; leave it out where there is none")
    return example


def _idx(row: Row | RowError, columns: ColumnsConfig, number: int) -> str | None:
    if columns.idx is None:
        return str(number)
    name = row.get(columns.idx) if isinstance(row, dict) else None
    return str(name)[:SHOWN_CHARACTERS] if isinstance(name, str | int | float) else None


SHOWN_CHARACTERS = 200  # of a refused record's name
