"""Rows of a source under the published field names, taken from columns by name or from a chat.

    {"question": "When?", "text": "…"}  --columns: {query: question, context: text, idx: null}-->
    {"idx": 0, "query": "When?", "context": "…"}

Settings take precedence over the form of a row: a row with `input` and `answers` is read as LongBench's only if none of
query, context, answer and messages is set. A row that fits both forms is rejected.
"""

import difflib
from typing import Any, Literal

from pydantic import model_validator

from longreward.config import Config
from longreward.data.chats import QuestionPosition, join_paragraphs, split_chat
from longreward.data.formats import LONGBENCH_FIELDS, is_longbench, longbench_fields
from longreward.errors import ConfigError
from longreward.utils.jsonl import Row, RowError, missing_key

COLUMN_FIELDS = ("idx", "query", "context", "answer", "document", "messages", "rubric")
LONGBENCH_MARKERS = {"input", "answers"}


class ColumnsConfig(Config):
    """Which column of the source contains what. A column that is named here must exist."""

    idx: str | None = "idx"
    """The record's id, a text or whole number; null: records are numbered from 0 in the order of the source."""

    query: str = "query"
    """The question, a text."""

    context: str = "context"
    """The document: a text, or its paragraphs as a list of texts, of [title, sentences] (HotpotQA) or of {title,
    text}, which are joined by blank lines."""

    answer: str = "answer"
    """The answer that `sft` trains on, a text. May be missing unless it is named here."""

    document: str = "document"
    """The document's name, if several questions share one. Without it, equal texts are one document."""

    rubric: str | None = None
    """The rubric for responses to the query (`score.optional_dimensions`): a list of texts or of {text, weight}, or a
    text with an item a line. A row may have none; the judge then writes it."""

    messages: str | None = None
    """A chat instead of query, context and answer, a list of {role, content} or of {from, value} (ShareGPT). The
    user's first message is split into context and query, the reply to it is the answer, later turns are ignored."""

    question: QuestionPosition = "auto"
    """Position of the question in the first user message of a chat: after its last blank line (last) or before its
    first one (first). auto: last, if the last paragraph reads as a question or instruction (English, Chinese, a
    question mark) and the first does not; other chats are rejected."""

    format: Literal["auto", "columns", "longbench"] = "auto"
    """How a row with `input` and `answers` is read: as a record of LongBench (longbench), or by the columns above
    (columns). auto: LongBench, unless query, context, answer or messages is set here. A row that also has `query` or
    `answer` is then rejected, because both forms are possible."""

    @model_validator(mode="after")
    def _reject_conflicting_columns(self) -> "ColumnsConfig":
        configured = self.configured("query", "context", "answer")
        if self.messages is not None and configured:
            raise ValueError(f"messages contains {', '.join(configured)} as well: remove one of them")
        if self.format == "longbench" and (self.messages is not None or configured):
            raise ValueError(
                f"format is longbench, whose columns are {', '.join(LONGBENCH_FIELDS)}: remove "
                f"{', '.join(configured) or 'messages'}, or set format to columns"
            )
        return self

    def is_default(self, name: str) -> bool:
        """Return whether a field has its default value. A form that sends every default must change nothing."""
        return bool(getattr(self, name) == type(self).model_fields[name].default)

    def configured(self, *names: str) -> list[str]:
        """Return those of `names` that differ from their defaults."""
        return [name for name in names if not self.is_default(name)]

    @property
    def allows_longbench(self) -> bool:
        """Whether the form of a row decides if it is a record of LongBench."""
        return self.format != "columns" and not self.configured("query", "context", "answer", "messages")


def check_columns(config: ColumnsConfig, columns: list[str], *, source: str) -> None:
    """Raise ConfigError for the first required or configured column that is not in `columns` (empty: unknown)."""
    if not columns:
        return
    # A missing optional column is an error only if the settings name it.
    required = {"idx"} | ({"messages"} if config.messages is not None else {"query", "context"})
    if config.format == "longbench":
        required = set()
        if missing := [name for name in LONGBENCH_FIELDS if name not in columns]:
            raise ConfigError(
                f"prepare.columns.format is longbench, and {source} has no column {missing[0]!r}; it has "
                f"{', '.join(columns)}"
            )
    elif config.allows_longbench and LONGBENCH_MARKERS.issubset(columns):
        required = set()
    for field in COLUMN_FIELDS:
        column, configured = getattr(config, field), not config.is_default(field)
        if column is None or column in columns or not (configured or field in required):
            continue
        prefix = f"prepare.columns.{field} is {column!r}, and " if configured else ""
        similar = difflib.get_close_matches(column, columns, n=1, cutoff=0.5)
        hint = f"; did you mean {similar[0]!r}?" if similar else ""
        advice = f"Name the column in prepare.columns.{field}"
        if field == "idx":
            advice = "Name the column with ids, or set prepare.columns.idx to null to number the records"
        elif "messages" in columns and field in ("query", "context"):
            advice += ", or read the chat with prepare.columns.messages: messages"
        raise ConfigError(f"{prefix}{source} has no column {column!r}; it has {', '.join(columns)}{hint}\n{advice}")


def map_columns(config: ColumnsConfig, row: Row, *, number: int) -> Row:
    """Return the row under the published names; `number` is its id if idx is null.

    Raises RowError if it lacks a column, fits two forms or contains a chat that cannot be split.
    """

    def cell(column: str) -> Any:
        if column not in row:
            raise missing_key(column, row)
        return row[column]

    longbench = False
    if config.allows_longbench:
        try:
            longbench = config.format == "longbench" or is_longbench(row)
        except RowError as error:
            raise RowError(f"{error}; set prepare.columns.format to longbench or columns") from None
    fields = longbench_fields(row) if longbench else {}
    # LongBench has its own id field, so the default idx does not apply.
    if not longbench or not config.is_default("idx"):
        fields["idx"] = number if config.idx is None else cell(config.idx)
    if config.document in row:
        fields["document"] = row[config.document]
    if config.rubric is not None and config.rubric in row:
        fields["rubric"] = row[config.rubric]
    if longbench:
        return fields
    if config.messages is not None:
        return fields | split_chat(cell(config.messages), config.question)
    fields["query"] = cell(config.query)
    fields["context"] = join_paragraphs(cell(config.context), config.context)
    return fields | ({"answer": row[config.answer]} if config.answer in row else {})
