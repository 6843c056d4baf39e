"""Validation of raw records: bad ones, duplicates and held-out texts are left out, each with its reason.

Per record only its id, a hash of its texts and the name of its document are kept in memory.
"""

import hashlib
from collections.abc import Iterator

from pydantic import ValidationError

from longreward.data.columns import ColumnsConfig, map_columns
from longreward.data.formats import document_id, example_from_row, hash_words, is_blank
from longreward.data.preferences import PairsConfig, preference_from_row
from longreward.data.source import RejectedRecord, Source, SourceLocation
from longreward.records import Example, PreferencePair
from longreward.utils.jsonl import RowError, error_reason

MAX_IDX_CHARACTERS = 200


class HeldOutIndex:
    """Documents and prompts of the held-out split: a pair about one of them would train on the test data."""

    def __init__(self) -> None:
        self._documents: set[str] = set()
        self._prompts: set[bytes] = set()

    def add(self, context: str, query: str) -> None:
        """Add an example of the held-out split."""
        self._documents.add(document_id(context))
        self._prompts.add(self._hash_prompt(context, query))

    def __contains__(self, pair: PreferencePair) -> bool:
        if not is_blank(pair.context) and document_id(pair.context) in self._documents:
            return True
        return self._hash_prompt(pair.context, pair.query) in self._prompts

    @staticmethod
    def _hash_prompt(context: str, query: str) -> bytes:
        # Equal whether document and question are in two columns or in one text.
        return hash_words(f"{context} {query}").digest()


def validate_examples(
    source: Source, columns: ColumnsConfig
) -> Iterator[tuple[SourceLocation, Example | RejectedRecord]]:
    """Yield each record as an example, or rejected: bad, a repeated idx, or the same query on the same text.

    Rejected records are numbered too, so that correcting one does not rename others.
    """
    index = _RecordIndex("the same query on the same text")
    document_of_text: dict[str, str] = {}
    for number, (location, row) in enumerate(source.rows()):
        try:
            if isinstance(row, RowError):
                raise row
            example = example_from_row(map_columns(columns, row, number=number))
            if is_blank(example.context):  # an id like that of a short instruction allows it
                raise RowError("context is empty")
            if example.answer is not None and is_blank(example.answer):
                raise RowError("answer is empty; omit it if there is none")
        except (RowError, ValidationError) as error:
            idx = number if columns.idx is None else row.get(columns.idx) if isinstance(row, dict) else None
            idx = str(idx)[:MAX_IDX_CHARACTERS] if isinstance(idx, str | int | float) else None
            yield location, RejectedRecord(location, idx, error_reason(error))
            continue
        text_id = document_id(example.context)
        # 32 bytes per record instead of the texts.
        content = hashlib.sha256(f"{text_id}\0{hash_words(example.query).hexdigest()}".encode()).digest()
        if (rejected := index.check(location, example.id, content)) is not None:
            yield location, rejected
            continue
        # A text under two document names must not end up in two splits, so it keeps its first name.
        document = document_of_text.setdefault(text_id, example.document_id)
        yield location, example.model_copy(update={"document_id": document})


def validate_pairs(
    source: Source, config: PairsConfig, held_out: HeldOutIndex
) -> Iterator[tuple[SourceLocation, PreferencePair | RejectedRecord]]:
    """Yield each row as a pair, or rejected: bad, a repeated idx or pair, or a held-out document or prompt."""
    index = _RecordIndex("the same pair")
    for number, (location, row) in enumerate(source.rows()):
        try:
            if isinstance(row, RowError):
                raise row
            pair = preference_from_row(row, config, number)
        except (RowError, ValidationError) as error:
            idx = str(number) if config.idx is None else None
            yield location, RejectedRecord(location, idx, error_reason(error))
            continue
        if pair in held_out:
            reason = "its document or prompt is held out for `evaluate`"
            yield location, RejectedRecord(location, pair.id, reason, "held_out")
            continue
        # Checked after the held-out texts, so that a held-out duplicate counts as held out.
        texts = (pair.context, pair.query, pair.chosen.text, pair.rejected.text)
        content = hash_words(" ".join(hash_words(text).hexdigest() for text in texts)).digest()
        yield location, index.check(location, pair.id, content) or pair


class _RecordIndex:
    """Locations of accepted records by id and by content."""

    def __init__(self, duplicate: str) -> None:
        self._duplicate = duplicate
        self._location_of_id: dict[str, SourceLocation] = {}
        self._location_of_content: dict[bytes, SourceLocation] = {}

    def check(self, location: SourceLocation, record_id: str, content: bytes) -> RejectedRecord | None:
        """Return the record as rejected if its content or id is known, otherwise add it."""
        if first := self._location_of_content.get(content):
            reason = f"{self._duplicate} as {first.relative_to(location.file)}"
            return RejectedRecord(location, record_id, reason, "duplicate")
        if first := self._location_of_id.get(record_id):
            reason = f"idx {record_id} is used in {first.relative_to(location.file)} already, with other content"
            return RejectedRecord(location, record_id, reason)
        self._location_of_id[record_id] = self._location_of_content[content] = location
        return None
