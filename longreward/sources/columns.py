"""A user's columns as the published fields: by name, or out of a chat.

    {"question": "When?", "text": "…"}  --columns: {query: question, context: text, idx: null}-->
    {"idx": 0, "query": "When?", "context": "…"}

In a chat (LongAlign-10k and the like) the user's first message holds document and question together. They are told
apart at its last blank line, as the LongBench templates and our own `prompt_template` join them.
"""

import difflib
import re
from typing import Any

from pydantic import model_validator

from longreward.config import Config
from longreward.errors import ConfigError
from longreward.jsonl import Row, RowError


class ColumnsConfig(Config):
    """Which column of the source holds what. A column that is named here must be there."""

    idx: str | None = "idx"
    """Each record's name, a text or whole number; null: records are numbered from 0 in the order of the source."""

    query: str = "query"
    """The question, a text."""

    context: str = "context"
    """The document, a text."""

    answer: str = "answer"
    """The answer to train `sft` on, a text; may be missing unless it is named here."""

    document: str = "document"
    """The document's name, where several questions share one; without it, equal texts are one document."""

    messages: str | None = None
    """A chat, a list of {role, content}, instead of query, context and answer: the user's first message is split at its
    last blank line into context and query, the reply to it is the answer, later turns are left out."""

    @model_validator(mode="after")
    def _one_place_for_the_question(self) -> "ColumnsConfig":
        twice = [name for name in ("query", "context", "answer") if not self.is_default(name)]
        if self.messages is not None and twice:
            raise ValueError(f"messages holds {', '.join(twice)} as well: leave one of them out")
        return self

    def is_default(self, name: str) -> bool:
        """Whether a field is as it is where nobody names it; a form that sends every default changes nothing."""
        return bool(getattr(self, name) == type(self).model_fields[name].default)


def check_columns(config: ColumnsConfig, there: list[str], *, source: str) -> None:
    """Raises ConfigError for the first column that is needed or named and not `there`; nothing known: no check."""
    if not there or _is_longbench(config, there):
        return
    taken = ("idx", "messages") if config.messages is not None else ("idx", "query", "context")
    for name in ColumnsConfig.model_fields:
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


def published_row(config: ColumnsConfig, row: Row, *, number: int) -> Row:
    """The row under the published names; RowError where it lacks a column or its chat cannot be taken apart."""
    if all(config.is_default(name) for name in ColumnsConfig.model_fields):
        return row
    if _is_longbench(config, list(row)):
        return row if config.idx is not None else {**row, "_id": str(number)}
    found: Row = {"idx": number} if config.idx is None else {"idx": _cell(row, config.idx)}
    if config.document in row:
        found["document"] = row[config.document]
    if config.messages is not None:
        return found | split_chat(_cell(row, config.messages))
    found |= {"query": _cell(row, config.query), "context": _cell(row, config.context)}
    return found | ({"answer": row[config.answer]} if config.answer in row else {})


def _is_longbench(config: ColumnsConfig, there: list[str]) -> bool:
    own = config.messages is not None or not (config.is_default("query") and config.is_default("context"))
    return not own and "input" in there and "answers" in there


def _cell(row: Row, column: str) -> Any:
    if column not in row:
        raise RowError(f"{column} is missing; the row has {', '.join(map(repr, row)) or 'no keys'}")
    return row[column]


def split_chat(messages: Any) -> Row:
    """`context`, `query` and (where there is a reply) `answer` of a chat; RowError says why it cannot be told."""
    turns = [_turn(number, message) for number, message in enumerate(_listed(messages))]
    if len(turns) > 1 and turns[0][0] == "system" and not turns[0][1].strip():
        turns = turns[1:]
    if turns[0][0] == "system":
        raise RowError("the chat has a system message, which a prompt here has not; put it into the user's")
    if turns[0][0] != "user":
        raise RowError(f"the chat begins with {turns[0][0]!r}, expected the user")
    if len(turns) > 1 and turns[1][0] != "assistant":
        raise RowError(f"the chat's second turn is {turns[1][0]!r}, expected the assistant's answer")
    content = turns[0][1].strip()
    blank = BLANK_LINES.match(content)
    if not blank:
        raise RowError("the user's message has no blank line, which would tell document and question apart")
    context, query = blank["before"].rstrip(), blank["after"].lstrip()
    if len(query) >= len(context):
        raise RowError("what follows the last blank line is not shorter than what precedes it; the question comes last")
    return {"context": context, "query": query} | ({"answer": turns[1][1]} if len(turns) > 1 else {})


def _listed(messages: Any) -> list[Any]:
    if not isinstance(messages, list) or not messages:
        found = "an empty list" if messages == [] else type(messages).__name__
        raise RowError(f"the chat is {found}, expected a list of {{role, content}}")
    return messages


def _turn(number: int, message: Any) -> tuple[str, str]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        keys = f" {', '.join(message)}" if isinstance(message, dict) else ""
        raise RowError(f"turn {number} of the chat is {type(message).__name__}{keys}, expected {{role, content}}")
    if not isinstance(message.get("content"), str):
        raise RowError(
            f"turn {number} of the chat has {type(message.get('content')).__name__} for content, expected text"
        )
    return message["role"], message["content"]


BLANK_LINES = re.compile(r"(?P<before>.*)\n[ \t\r]*\n(?P<after>.*)", re.DOTALL)
