"""Chats in the layouts of public data sets, and the split into document and question."""

from typing import Any

import pytest

from longreward.data.chats import is_question, parse_messages, split_chat
from longreward.utils.jsonl import RowError

DOCUMENT = "The bridge was opened in 1912.\n\nIt stands in the north.\n"
PARAGRAPHS = "The bridge was opened in 1912 by the mayor.\n\nIt stands in the north of the town.\n\nIt is red."


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def test_chat_split_before_final_question() -> None:
    turns = [
        user(f"{DOCUMENT}\n \r\n  Where does it stand? \n"),
        {"role": "assistant", "content": "In the north."},
        user("And when was it opened?"),
    ]
    assert split_chat(turns) == {
        "context": "The bridge was opened in 1912.\n\nIt stands in the north.",
        "query": "Where does it stand?",
        "answer": "In the north.",
    }
    assert split_chat([{"role": "system", "content": " "}, *turns[:1]]).keys() == {"context", "query"}


@pytest.mark.parametrize(
    "question", ["Summarise this document.", "When was the bridge opened?", "请总结全文。", "Answer:"]
)
def test_question_before_document_needs_setting(question: str) -> None:
    with pytest.raises(RowError, match=r"first paragraph looks like the question .* prepare\.columns\.question to"):
        split_chat([user(f"{question}\n\n{PARAGRAPHS}")])
    result = split_chat([user(f"{question}\n \n{PARAGRAPHS}")], "first")
    assert result == {"context": PARAGRAPHS, "query": question}


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (f"What is red?\n\n{PARAGRAPHS}\n\nAnswer in one word.", "its first and its last paragraph both look"),
        (PARAGRAPHS, "neither its first nor its last paragraph looks like a question"),
        (f"{PARAGRAPHS}\n\nResume el texto.", "neither its first nor its last"),  # a language that is not known
        (f"Résume le texte.\n\n{PARAGRAPHS}", "neither its first nor its last"),
    ],
)
def test_ambiguous_chat_rejected_unless_configured(message: str, reason: str) -> None:
    with pytest.raises(RowError, match=f"{reason}.*set prepare.columns.question to last or first"):
        split_chat([user(message)])
    opening, _, rest = message.partition("\n\n")
    before, _, closing = message.rpartition("\n\n")
    assert split_chat([user(message)], "first") == {"context": rest, "query": opening}
    assert split_chat([user(message)], "last") == {"context": before, "query": closing}


@pytest.mark.parametrize(
    ("paragraph", "expected"),
    [
        ("Where does it stand", True),
        ("Please summarize the report in two sentences.", True),
        ("Question: the year of its opening", True),
        ("这座桥是哪一年开放的", False),  # only what is known of is called a question
        ("这座桥开放了吗", True),
        ("根据上文，列出三个原因。", True),
        ("ما هو الجسر؟", True),
        ("It stands in the north.", False),
        ("Whatever happened, the bridge stood.", False),
        ("How bridges are built " * 60, False),  # a paragraph of a document, by its length
    ],
)
def test_is_question(paragraph: str, expected: bool) -> None:
    assert is_question(paragraph) is expected


def test_sharegpt_and_content_parts_give_same_chat() -> None:
    text = f"{DOCUMENT}\n\nWhere does it stand?"
    expected = split_chat([user(text), {"role": "assistant", "content": "In the north."}])
    share_gpt = [{"from": "human", "value": text}, {"from": "gpt", "value": "In the north."}]
    parts = [
        user([{"type": "text", "text": DOCUMENT.strip()}, {"type": "text", "text": "Where does it stand?"}]),
        {"role": "assistant", "content": [{"type": "text", "text": "In the north."}], "tool_calls": None},
    ]
    assert split_chat(share_gpt) == split_chat(parts) == expected
    assert expected["answer"] == "In the north."


def test_system_message_put_before_question() -> None:
    text = user(f"{DOCUMENT}\n\nWhere does it stand?")
    for system in ({"role": "system", "content": "Be brief."}, {"from": "system", "value": "Be brief. "}):
        result = split_chat([system, text])
        assert result == {"context": DOCUMENT.strip(), "query": "Be brief.\n\nWhere does it stand?"}


@pytest.mark.parametrize(
    ("chat", "reason"),
    [
        (None, "NoneType, expected a list"),
        ([], "an empty list"),
        ([{"text": "x"}], r"turn 0 of the chat is dict text, expected \{role, content\} or \{from, value\}"),
        (
            [user([{"type": "image_url", "image_url": {}}])],
            "turn 0 of the chat has a part of type 'image_url'; only text",
        ),
        ([user([])], "turn 0 of the chat has an empty list for content"),
        (
            [user("a a\n\nb?"), {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}],
            "turn 1 .* tool call",
        ),
        ([user("a a\n\nb?"), {"role": "tool", "content": "3"}], "turn 1 of the chat is a tool call or its result"),
        ([{"from": "human", "value": "a a\n\nb?"}, {"from": "function_call", "value": "{}"}], "turn 1 .* tool call"),
        ([{"role": "assistant", "content": "a a\n\nb"}], "begins with 'assistant'"),
        ([user("a a\n\nb?"), user("c")], "second turn is 'user'"),
        ([user("The document.\nThe question?")], "no blank line"),
        ([user("The bridge.\n\nWhen was the bridge of the town opened?")], "is not shorter than the rest"),
    ],
)
def test_unusable_chat_rejected_with_reason(chat: Any, reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        split_chat(chat)


def test_role_names() -> None:
    turns = [{"from": name, "value": "x"} for name in ("system", "human", "gpt", "Human", "chatgpt")]
    assert [message.role for message in parse_messages(turns)] == ["system", "user", "assistant", "user", "assistant"]
