from typing import Any

import pytest

from longreward.errors import ConfigError
from longreward.jsonl import RowError
from longreward.sources.columns import ColumnsConfig, check_columns, published_row, split_chat

DOCUMENT = "The bridge was opened in 1912.\n\nIt stands in the north.\n"


def columns(**settings: Any) -> ColumnsConfig:
    return ColumnsConfig.parse(settings, source="test")


def test_named_columns_become_the_published_ones() -> None:
    row = {"id": "a7", "question": "When?", "text": "In 1912.", "gold": "1912", "file": "b.txt", "more": 1}
    mapped = columns(idx="id", query="question", context="text", answer="gold", document="file")
    assert published_row(mapped, row, number=5) == {
        "idx": "a7",
        "query": "When?",
        "context": "In 1912.",
        "answer": "1912",
        "document": "b.txt",
    }


def test_records_are_numbered_where_idx_is_null() -> None:
    assert published_row(columns(idx=None), {"query": "q", "context": "c"}, number=5)["idx"] == 5
    longbench = {"_id": "5f", "input": "q", "context": "c", "answers": ["a"]}
    assert published_row(columns(idx=None), longbench, number=5)["_id"] == "5"


def test_without_settings_a_row_is_passed_on_as_it_is() -> None:
    row = {"idx": 1, "query": "q", "context": "c", "win_response": "w"}
    assert published_row(columns(), row, number=0) is row


def test_a_row_that_lacks_a_named_column_is_one_bad_record() -> None:
    with pytest.raises(RowError, match="question is missing; the row has 'idx', 'context'"):
        published_row(columns(query="question"), {"idx": 1, "context": "c"}, number=0)


@pytest.mark.parametrize(
    ("settings", "there", "message"),
    [
        (
            {"query": "question"},
            ["idx", "Question", "context"],
            r"prepare\.columns\.query is 'question', and x\.jsonl has no column 'question'; it has idx, Question, "
            r"context; did you mean 'Question'\?",
        ),
        ({"answer": "gold"}, ["idx", "query", "context"], r"prepare\.columns\.answer is 'gold'"),
        ({}, ["idx", "question", "context"], r"x\.jsonl has no column 'query'.*\n.*with prepare\.columns\.query"),
        ({}, ["query", "context"], r"no column 'idx'.*\n.*set prepare\.columns\.idx to null"),
        ({"idx": None}, ["messages", "length"], r"\n.*prepare\.columns\.messages: messages"),
        ({"messages": "chat"}, ["idx", "messages"], r"prepare\.columns\.messages is 'chat'"),
    ],
)
def test_a_column_that_is_not_there_is_one_error_that_names_those_that_are(
    settings: dict[str, Any], there: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_columns(columns(**settings), there, source="x.jsonl")


@pytest.mark.parametrize(
    ("settings", "there"),
    [
        ({}, ["idx", "query", "context"]),  # answer and document may be missing
        ({}, ["_id", "input", "answers", "context"]),
        ({"idx": None, "messages": "messages"}, ["messages", "length"]),
        ({"query": "question"}, []),  # nothing is known: the records will tell
    ],
)
def test_columns_that_suffice_pass(settings: dict[str, Any], there: list[str]) -> None:
    check_columns(columns(**settings), there, source="x.jsonl")


def test_a_chat_and_a_question_column_exclude_each_other_but_a_form_may_send_the_defaults() -> None:
    with pytest.raises(ConfigError, match="messages holds query, answer as well"):
        columns(messages="messages", query="question", answer="gold")
    assert columns(messages="messages", query="query", context="context", answer="answer").messages == "messages"


def test_a_chat_is_split_at_its_last_blank_line() -> None:
    turns = [
        {"role": "user", "content": f"{DOCUMENT}\n \r\n  Where does it stand? \n"},
        {"role": "assistant", "content": "In the north."},
        {"role": "user", "content": "And when was it opened?"},
    ]
    assert split_chat(turns) == {
        "context": "The bridge was opened in 1912.\n\nIt stands in the north.",
        "query": "Where does it stand?",
        "answer": "In the north.",
    }
    assert split_chat([{"role": "system", "content": " "}, *turns[:1]]).keys() == {"context", "query"}


@pytest.mark.parametrize(
    ("chat", "reason"),
    [
        (None, "NoneType, expected a list"),
        ([], "an empty list"),
        ([{"from": "human", "value": "x"}], "turn 0 of the chat is dict from, value"),
        ([{"role": "user", "content": [{"type": "text"}]}], "turn 0 of the chat has list for content"),
        ([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "a a\n\nb"}], "system message"),
        ([{"role": "assistant", "content": "a a\n\nb"}], "begins with 'assistant'"),
        ([{"role": "user", "content": "a a\n\nb"}, {"role": "user", "content": "c"}], "second turn is 'user'"),
        ([{"role": "user", "content": "The document.\nThe question?"}], "no blank line"),
        ([{"role": "user", "content": "Sum this up:\n\nThe bridge was opened in 1912."}], "the question comes last"),
    ],
)
def test_a_chat_that_cannot_be_told_apart_is_refused_with_the_reason(chat: Any, reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        split_chat(chat)
