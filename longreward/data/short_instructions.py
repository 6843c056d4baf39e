"""Short instructions without a document: answered (UltraChat) or with a preference (UltraFeedback).

    {"prompt": "Name a colour.", "response": "Red."}                                  answered
    {"messages": [{"role": "user", …}, {"role": "assistant", "content": "Red."}]}
    {"prompt": "Name a colour.", "chosen": "Red.", "rejected": "No."}                 with a preference
    {"chosen": [{"role": "user", …}, {"role": "assistant", …}], "rejected": […]}      the prompt in both chats

A chat may begin with a system prompt, which is put before the question. A policy gets single questions here: of an
answered chat the first question and its answer are used; a preference after several turns is rejected.
"""

from collections.abc import Mapping

from longreward.data.preferences import (
    check_not_blank,
    given_pair,
    parse_chat,
    parse_preference,
    parse_prompt,
    single_question,
)
from longreward.records import SHORT_PREFIX, Example, PreferencePair
from longreward.utils.jsonl import Row, RowError, missing_key


def short_pair_from_row(row: Row | RowError, columns: Mapping[str, str], *, number: int) -> PreferencePair:
    """Return the pair `short/<number>`; `columns` names those of `prompt`, `chosen` and `rejected`.

    Raises RowError if the row cannot be used.
    """
    if isinstance(row, RowError):
        raise row
    query, chosen, rejected = parse_preference(row, columns)
    return short_pair(number, query=query, chosen=chosen, rejected=rejected)


def short_example_from_row(row: Row | RowError, columns: Mapping[str, str], *, number: int) -> Example:
    """Return the example `short/<number>`; `columns` names those of `prompt` and `answer`.

    Raises RowError if the row cannot be used.
    """
    if isinstance(row, RowError):
        raise row
    query, answer = _first_exchange(row, columns["answer"])
    if query is None:
        query = parse_prompt(row.get(columns["prompt"]), columns["prompt"])
    if query is None:
        raise missing_key(columns["prompt"], row)
    check_not_blank({columns["prompt"]: query, columns["answer"]: answer})
    return short_example(number, query=query, answer=answer)


def short_pair(number: int, *, query: str, chosen: str, rejected: str) -> PreferencePair:
    """Return the pair of a short instruction."""
    return given_pair(f"{SHORT_PREFIX}{number}", context="", query=query, chosen=chosen, rejected=rejected)


def short_example(number: int, *, query: str, answer: str | None = None) -> Example:
    """Return the example of a short instruction, which is its own document."""
    example_id = f"{SHORT_PREFIX}{number}"
    return Example(id=example_id, document_id=example_id, context="", query=query, answer=answer)


def _first_exchange(row: Row, column: str) -> tuple[str | None, str]:
    """Return the question, if the column contains it too, and its answer."""
    value = row.get(column)
    if isinstance(value, str):
        return None, value
    messages = parse_chat(value, column)
    index = next((i for i, message in enumerate(messages) if message.role == "assistant"), None)
    if index is None:
        raise RowError(f"{column} is a chat without an assistant's turn")
    return (single_question(messages[:index], column) if index else None), messages[index].text
