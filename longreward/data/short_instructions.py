"""Short instructions of others, without a document: answered (UltraChat) or with a preference (UltraFeedback).

    {"prompt": "Name a colour.", "response": "Red."}                                  answered
    {"messages": [{"role": "user", …}, {"role": "assistant", "content": "Red."}]}
    {"prompt": "Name a colour.", "chosen": "Red.", "rejected": "No."}                 preferred
    {"prompt": "…", "chosen": [{"role": "user", …}, {"role": "assistant", "content": "Red."}], "rejected": […]}
    {"chosen": [{"role": "user", …}, {"role": "assistant", …}], "rejected": […]}      the prompt in both chats

A chat may open with a system prompt, which then stands before the question. A policy here is asked once: of an answered
chat the first question and its answer are taken; a preference at the end of several turns is left out.
"""

from collections.abc import Mapping
from typing import Any

from longreward.data.chats import Message, parse_messages
from longreward.records import SHORT, Example, PreferencePair, Response
from longreward.utils.jsonl import Row, RowError, missing_key


def short_pair_from_row(row: Row | RowError, columns: Mapping[str, str], *, number: int) -> PreferencePair:
    """The pair named `short/<number>`; `columns` names those of `prompt`, `chosen` and `rejected`.

    RowError where it cannot be used: says why.
    """
    if isinstance(row, RowError):
        raise row
    query, better, worse = parse_preference(row, columns)
    return short_pair(number, query=query, better=better, worse=worse)


def parse_preference(row: Row, columns: Mapping[str, str]) -> tuple[str, str, str]:
    """The question, the better and the worse answer; `columns` names those of `prompt`, `chosen` and `rejected`.

    Raises RowError where the row cannot be used.
    """
    if row.get("tools"):
        raise RowError("the row has tools, which cannot be trained on here; leave such rows out")
    asked, better = _side(row, columns["chosen"])
    also_asked, worse = _side(row, columns["rejected"])
    given = _prompt(row.get(columns["prompt"]), columns["prompt"])
    if len({prompt for prompt in (asked, also_asked) if prompt is not None}) > 1:
        raise RowError(f"{columns['chosen']} and {columns['rejected']} answer different prompts")
    query = _query(row, asked or also_asked or given, columns["prompt"])
    _check_texts({columns["prompt"]: query, columns["chosen"]: better, columns["rejected"]: worse})
    if better == worse:
        raise RowError("both answers are the same")
    return query, better, worse


def short_example_from_row(row: Row | RowError, columns: Mapping[str, str], *, number: int) -> Example:
    """The example named `short/<number>`; `columns` names those of `prompt` and `answer`.

    RowError where it cannot be used: says why.
    """
    if isinstance(row, RowError):
        raise row
    asked, answer = _first_exchange(row, columns["answer"])
    given = _prompt(row.get(columns["prompt"]), columns["prompt"]) if asked is None else None
    query = _query(row, asked or given, columns["prompt"])
    _check_texts({columns["prompt"]: query, columns["answer"]: answer})
    return short_example(number, query=query, answer=answer)


def short_pair(number: int, *, query: str, better: str, worse: str) -> PreferencePair:
    """A pair that came with its preference."""
    name = f"{SHORT}{number}"

    def response(n: int, text: str) -> Response:
        return Response(id=f"{name}-{n}", example_id=name, query=query, text=text)

    return PreferencePair(
        id=name,
        context="",
        query=query,
        chosen=response(0, better),
        rejected=response(1, worse),
        chosen_reward=None,
        rejected_reward=None,
        method="given",
    )


def short_example(number: int, *, query: str, answer: str | None = None) -> Example:
    """An instruction, which is its own document."""
    name = f"{SHORT}{number}"
    return Example(id=name, document_id=name, context="", query=query, answer=answer)


def _query(row: Row, found: str | None, column: str) -> str:
    if found is None:
        raise missing_key(column, row)
    return found


def _check_texts(texts: Mapping[str, str]) -> None:
    for column, text in texts.items():
        if not text.strip():
            raise RowError(f"{column} is empty")


def _first_exchange(row: Row, column: str) -> tuple[str | None, str]:
    """The question, where the column holds it too, and its answer."""
    value = row.get(column)
    if isinstance(value, str):
        return None, value
    turns = _turns(value, column)
    answer = next((at for at, (role, _) in enumerate(turns) if role == "assistant"), None)
    if answer is None:
        raise RowError(f"{column} is a chat without an assistant's turn")
    return (_asked(turns[:answer], column) if answer else None), turns[answer][1]


def _side(row: Row, column: str) -> tuple[str | None, str]:
    """The prompt, where the column holds it too, and the answer."""
    value = row.get(column)
    if isinstance(value, str):
        return None, value
    turns = _turns(value, column)
    if not turns or turns[-1][0] != "assistant":
        raise RowError(f"{column} is a chat that does not end with the assistant's turn")
    return (_asked(turns[:-1], column) if len(turns) > 1 else None), turns[-1][1]


def _prompt(value: Any, column: str) -> str | None:
    return value if value is None or isinstance(value, str) else _asked(_turns(value, column), column)


def _asked(turns: list[Message], column: str) -> str:
    """The user's one turn, behind the system prompt where there is one."""
    roles = [role for role, _ in turns]
    if roles not in (["user"], ["system", "user"]):
        raise RowError(f"{column} is a chat of several turns ({', '.join(roles)}); one question is asked here")
    return "\n\n".join(text for _, text in turns if text.strip())


def _turns(value: Any, column: str) -> list[Message]:
    return parse_messages(value, what=column, expected="a text or a chat")
