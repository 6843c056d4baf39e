"""A user's columns as the published fields: by name, or out of a chat.

    {"question": "When?", "text": "…"}  --columns: {query: question, context: text, idx: null}-->
    {"idx": 0, "query": "When?", "context": "…"}

Settings win over what a row looks like: only where none of query, context, answer and messages is set, a row with
`input` and `answers` is read as LongBench's. One that fits both forms is refused.
"""

import difflib
from typing import Any, Literal

from pydantic import model_validator

from longreward.config import Config
from longreward.data.chats import QuestionPosition, join_paragraphs, split_chat
from longreward.data.formats import LONGBENCH_FIELDS, is_longbench, longbench_fields
from longreward.errors import ConfigError
from longreward.utils.jsonl import Row, RowError, missing_key


class ColumnsConfig(Config):
    """Which column of the source holds what. A column that is named here must be there."""

    idx: str | None = "idx"
    """Each record's name, a text or whole number; null: records are numbered from 0 in the order of the source."""

    query: str = "query"
    """The question, a text."""

    context: str = "context"
    """The document: a text, or its paragraphs as a list of texts, of [title, sentences] (HotpotQA) or of {title,
    text}, which are joined by blank lines."""

    answer: str = "answer"
    """The answer to train `sft` on, a text; may be missing unless it is named here."""

    document: str = "document"
    """The document's name, where several questions share one; without it, equal texts are one document."""

    messages: str | None = None
    """A chat instead of query, context and answer, a list of {role, content} or of {from, value} (ShareGPT): the
    user's first message is split into context and query, the reply to it is the answer, later turns are left out."""

    question: QuestionPosition = "auto"
    """Where the user's first message of a chat has its question: what follows its last blank line (last) or precedes
    its first one (first). auto: the last paragraph where it reads as a question or instruction (English, Chinese, a
    question mark) and the first does not; every other chat is rejected."""

    format: Literal["auto", "columns", "longbench"] = "auto"
    """What a row with `input` and `answers` is: a record of LongBench (longbench), or one like any other, whose
    columns are those above (columns). auto: LongBench, unless query, context, answer or messages is set here; a row
    that has `query` or `answer` of its own too is then rejected, since it could be either."""

    @model_validator(mode="after")
    def _one_place_for_the_question(self) -> "ColumnsConfig":
        twice = self.named("query", "context", "answer")
        if self.messages is not None and twice:
            raise ValueError(f"messages holds {', '.join(twice)} as well: leave one of them out")
        if self.format == "longbench" and (self.messages is not None or twice):
            raise ValueError(
                f"format is longbench, whose columns are {', '.join(LONGBENCH_FIELDS)}: leave out "
                f"{', '.join(twice) or 'messages'}, or set format to columns"
            )
        return self

    def is_default(self, name: str) -> bool:
        """Whether a field is as it is where nobody names it; a form that sends every default changes nothing."""
        return bool(getattr(self, name) == type(self).model_fields[name].default)

    def named(self, *names: str) -> list[str]:
        """Those of `names` that somebody set."""
        return [name for name in names if not self.is_default(name)]


COLUMNS = ("idx", "query", "context", "answer", "document", "messages")


def check_columns(config: ColumnsConfig, there: list[str], *, source: str) -> None:
    """Raises ConfigError for the first column that is needed or named and not `there`; nothing known: no check."""
    if not there:
        return
    taken = {"idx"} | ({"messages"} if config.messages is not None else {"query", "context"})
    if _may_be_longbench(config) and (config.format == "longbench" or LONGBENCH.issubset(there)):
        taken = {*LONGBENCH_FIELDS} if config.format == "longbench" else set()
        if gone := [name for name in LONGBENCH_FIELDS if name in taken and name not in there]:
            raise ConfigError(
                f"prepare.columns.format is longbench, and {source} has no column {gone[0]!r}; it has "
                f"{', '.join(there)}"
            )
    for name in COLUMNS:
        column = getattr(config, name)
        named = not config.is_default(name)
        if column is None or column in there or not (named or name in taken):
            continue
        near = difflib.get_close_matches(column, there, n=1, cutoff=0.5)
        says = f"prepare.columns.{name} is {column!r}, and {source} has" if named else f"{source} has"
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{says} no column {column!r}; it has {', '.join(there)}{hint}{_advice(name, there)}")


def _advice(name: str, there: list[str]) -> str:
    if name == "idx":
        return "\nName the one that identifies a record, or set prepare.columns.idx to null: records are then numbered"
    chat = "messages" in there and name in ("query", "context")
    return f"\nSay which one it is with prepare.columns.{name}" + (
        ", or read the chat with prepare.columns.messages: messages" if chat else ""
    )


def map_columns(config: ColumnsConfig, row: Row, *, number: int) -> Row:
    """The row under the published names; RowError where it lacks a column, fits two forms or has a chat that cannot be
    split."""
    if _may_be_longbench(config) and _is_longbench(config, row):
        named: Row = {} if config.is_default("idx") else {"idx": _idx(config, row, number)}
        return {**longbench_fields(row), **named, **_document(config, row)}
    found = {"idx": _idx(config, row, number), **_document(config, row)}
    if config.messages is not None:
        return found | split_chat(_cell(row, config.messages), config.question)
    found |= {
        "query": _cell(row, config.query),
        "context": join_paragraphs(_cell(row, config.context), config.context),
    }
    return found | ({"answer": row[config.answer]} if config.answer in row else {})


def _may_be_longbench(config: ColumnsConfig) -> bool:
    """Whether the settings leave it to the row: explicit columns win over what it looks like."""
    return config.format != "columns" and not config.named("query", "context", "answer", "messages")


def _is_longbench(config: ColumnsConfig, row: Row) -> bool:
    if config.format == "longbench":
        return True
    try:
        return is_longbench(row)
    except RowError as error:
        raise RowError(f"{error}; set prepare.columns.format to longbench or columns") from None


def _idx(config: ColumnsConfig, row: Row, number: int) -> Any:
    return number if config.idx is None else _cell(row, config.idx)


def _document(config: ColumnsConfig, row: Row) -> Row:
    return {"document": row[config.document]} if config.document in row else {}


def _cell(row: Row, column: str) -> Any:
    if column not in row:
        raise missing_key(column, row)
    return row[column]


LONGBENCH = {"input", "answers"}  # how a row of LongBench is known
