from typing import Any

import pytest

from longreward.data.columns import ColumnsConfig, check_columns, map_columns
from longreward.errors import ConfigError
from longreward.utils.jsonl import RowError


def columns(**settings: Any) -> ColumnsConfig:
    return ColumnsConfig.parse(settings, source="test")


def test_configured_columns_renamed() -> None:
    row = {"id": "a7", "question": "When?", "text": "In 1912.", "gold": "1912", "file": "b.txt", "more": 1}
    mapped = columns(idx="id", query="question", context="text", answer="gold", document="file")
    assert map_columns(mapped, row, number=5) == {
        "idx": "a7",
        "query": "When?",
        "context": "In 1912.",
        "answer": "1912",
        "document": "b.txt",
    }


def test_records_numbered_if_idx_is_null() -> None:
    assert map_columns(columns(idx=None), {"query": "q", "context": "c"}, number=5)["idx"] == 5
    longbench = {"_id": "5f", "input": "q", "context": "c", "answers": ["a"]}
    assert map_columns(columns(idx=None), longbench, number=5)["idx"] == 5


def test_published_row_needs_no_settings() -> None:
    row = {"idx": 1, "query": "q", "context": "c", "win_response": "w"}
    assert map_columns(columns(), row, number=0) == {"idx": 1, "query": "q", "context": "c"}


LONGBENCH = {"_id": "5f", "input": "Who?", "context": "A text.", "answers": ["He.", "She."], "length": 2}
PUBLISHED = {"idx": 7, "query": "When?", "context": "A text.", "answer": "Then."}


@pytest.mark.parametrize(
    ("own", "other"),
    [
        ({"query": "When?"}, "query"),
        ({"answer": "Then."}, "answer"),
        ({"query": "When?", "answer": "Then.", "idx": 7}, "query, answer, idx"),
        ({"idx": 7}, "idx"),
    ],
)
def test_row_that_fits_two_forms_is_rejected(own: dict[str, Any], other: str) -> None:
    with pytest.raises(RowError) as caught:
        map_columns(columns(), LONGBENCH | own, number=0)
    assert str(caught.value) == (
        f"the row fits two forms: it has input and answers, as LongBench, and {other}, as sft.jsonl; "
        "set prepare.columns.format to longbench or columns"
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"format": "columns"}, PUBLISHED),
        ({"format": "longbench"}, {"idx": "5f", "query": "Who?", "context": "A text.", "answer": "He."}),
        ({"query": "input"}, {"idx": 7, "query": "Who?", "context": "A text.", "answer": "Then."}),
        ({"answer": "answer_long"}, PUBLISHED | {"answer": "Long."}),
        ({"context": "article"}, PUBLISHED | {"context": "An article."}),
    ],
)
def test_settings_take_precedence_over_form_of_row(settings: dict[str, Any], expected: dict[str, Any]) -> None:
    both = LONGBENCH | PUBLISHED | {"answer_long": "Long.", "article": "An article."}
    assert map_columns(columns(**settings), both, number=0) == expected


def test_longbench_row_with_configured_idx_and_document() -> None:
    row = LONGBENCH | {"key": "k3", "file": "a.txt"}
    mapped = map_columns(columns(idx="key", document="file"), row, number=0)
    assert (mapped["idx"], mapped["document"], mapped["query"]) == ("k3", "a.txt", "Who?")
    assert map_columns(columns(), LONGBENCH | {"query": None}, number=0)["query"] == "Who?"  # a null is no column
    with pytest.raises(RowError, match=r"answers is 'He\.', expected a list"):
        map_columns(columns(), LONGBENCH | {"answers": "He."}, number=0)


def test_longbench_format_excludes_columns() -> None:
    with pytest.raises(ConfigError, match=r"format is longbench, .* remove query, or set format to columns"):
        columns(format="longbench", query="question")
    with pytest.raises(ConfigError, match="format is longbench, and x has no column 'answers'; it has input, context"):
        check_columns(columns(format="longbench"), ["input", "context"], source="x")


@pytest.mark.parametrize(
    ("context", "text"),
    [
        (["One.", " ", "Two."], "One.\n\nTwo."),
        ([["Ada", ["She wrote.", " In 1843."]], ["Bab", ["He built."]]], "Ada\nShe wrote. In 1843.\n\nBab\nHe built."),
        (
            {"title": ["Ada", "Bab"], "sentences": [["She wrote.", " In 1843."], ["He built."]]},
            "Ada\nShe wrote. In 1843.\n\nBab\nHe built.",
        ),
        ([{"title": "Ada", "text": "She wrote."}, {"paragraph_text": "No title."}], "Ada\nShe wrote.\n\nNo title."),
    ],
)
def test_paragraphs_of_context_joined(context: Any, text: str) -> None:
    assert map_columns(columns(), {"idx": 1, "query": "q", "context": context}, number=0)["context"] == text


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        (["One.", 2], "paragraph 1 of context is int"),
        ([["Ada", ["x"], "more"]], "paragraph 0 of context is list"),
        ([{"title": "Ada"}], "paragraph 0 of context is dict"),
        ({"title": ["Ada"], "sentences": []}, "context has 1 titles and 0 lists of sentences"),
    ],
)
def test_unknown_paragraph_form_rejected(context: Any, reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        map_columns(columns(), {"idx": 1, "query": "q", "context": context}, number=0)


def test_row_without_configured_column_rejected() -> None:
    with pytest.raises(RowError, match="question is missing; the row has 'idx', 'context'"):
        map_columns(columns(query="question"), {"idx": 1, "context": "c"}, number=0)


@pytest.mark.parametrize(
    ("settings", "available", "message"),
    [
        (
            {"query": "question"},
            ["idx", "Question", "context"],
            r"prepare\.columns\.query is 'question', and x\.jsonl has no column 'question'; it has idx, Question, "
            r"context; did you mean 'Question'\?",
        ),
        ({"answer": "gold"}, ["idx", "query", "context"], r"prepare\.columns\.answer is 'gold'"),
        (
            {},
            ["idx", "question", "context"],
            r"x\.jsonl has no column 'query'.*\n.*prepare\.columns\.query",
        ),
        ({}, ["query", "context"], r"no column 'idx'.*\n.*set prepare\.columns\.idx to null"),
        ({"idx": None}, ["messages", "length"], r"\n.*prepare\.columns\.messages: messages"),
        ({"messages": "chat"}, ["idx", "messages"], r"prepare\.columns\.messages is 'chat'"),
    ],
)
def test_missing_column_is_error(settings: dict[str, Any], available: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_columns(columns(**settings), available, source="x.jsonl")


@pytest.mark.parametrize(
    ("settings", "available"),
    [
        ({}, ["idx", "query", "context"]),  # answer and document may be missing
        ({}, ["_id", "input", "answers", "context"]),
        ({"idx": None, "messages": "messages"}, ["messages", "length"]),
        ({"query": "question"}, []),  # nothing is known: the records will tell
    ],
)
def test_sufficient_columns_pass(settings: dict[str, Any], available: list[str]) -> None:
    check_columns(columns(**settings), available, source="x.jsonl")


def test_messages_excludes_other_columns_unless_they_have_defaults() -> None:
    with pytest.raises(ConfigError, match="messages contains query, answer as well"):
        columns(messages="messages", query="question", answer="gold")
    assert columns(messages="messages", query="query", context="context", answer="answer").messages == "messages"
