"""Short-context preferences of others (UltraFeedback and the like) as pairs without a document.

    {"prompt": "Name a colour.", "chosen": "Red.", "rejected": "No."}
    {"prompt": "…", "chosen": [{"role": "user", …}, {"role": "assistant", "content": "Red."}], "rejected": […]}
    {"chosen": [{"role": "user", …}, {"role": "assistant", …}], "rejected": […]}      the prompt in both chats

Chats have one turn of each side, and may open with a system prompt, which then stands before the question. Others are
left out, with their reason: a policy here is asked once.
"""

from collections.abc import Mapping
from typing import Any

from longreward.jsonl import Row, RowError
from longreward.records import PreferencePair, Response

SHORT = "short/"
"""How the names of pairs without a document begin, wherever they are among others."""


def preference_of(row: Row | RowError, columns: Mapping[str, str], *, number: int) -> PreferencePair:
    """The pair named `short/<number>`; `columns` names those of `prompt`, `chosen` and `rejected`.

    RowError where it cannot be used: says why.
    """
    if isinstance(row, RowError):
        raise row
    asked, better = _side(row, columns["chosen"])
    also_asked, worse = _side(row, columns["rejected"])
    given = _prompt(row.get(columns["prompt"]), columns["prompt"])
    prompts = {prompt for prompt in (asked, also_asked) if prompt is not None}
    if len(prompts) > 1:
        raise RowError(f"{columns['chosen']} and {columns['rejected']} answer different prompts")
    query = next(iter(prompts), None) or given
    if query is None:
        raise RowError(f"{columns['prompt']} is missing; the row has {', '.join(map(repr, row)) or 'no keys'}")
    for name, text in (("prompt", query), ("chosen", better), ("rejected", worse)):
        if not text.strip():
            raise RowError(f"{columns[name]} is empty")
    if better == worse:
        raise RowError("both answers are the same")
    return short_pair(number, query=query, better=better, worse=worse)


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


def _asked(turns: list[tuple[str, str]], column: str) -> str:
    """The user's one turn, behind the system prompt where there is one."""
    roles = [role for role, _ in turns]
    if roles not in (["user"], ["system", "user"]):
        raise RowError(f"{column} is a chat of several turns ({', '.join(roles)}); one question is asked here")
    return "\n\n".join(text for _, text in turns if text.strip())


def _turns(value: Any, column: str) -> list[tuple[str, str]]:
    if not isinstance(value, list):
        raise RowError(f"{column} is {type(value).__name__}, expected a text or a chat")
    for turn in value:
        if not isinstance(turn, dict) or not isinstance(turn.get("content"), str) or "role" not in turn:
            raise RowError(f"{column} holds a turn without role or content")
    return [(str(turn["role"]), turn["content"]) for turn in value]
