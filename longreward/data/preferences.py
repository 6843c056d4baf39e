"""Preference pairs and short instructions of others: the formats of TRL and of the LongReward authors.

{"prompt": "…", "chosen": "…", "rejected": "…"}                                            texts
{"prompt": [{"role": "user", …}], "chosen": [{"role": "assistant", …}], "rejected": […]}   chats
{"chosen": [{"role": "user", …}, {"role": "assistant", …}], "rejected": […]}               the prompt in both
{"context": "…", "query": "…", "win_response": "…", "lose_response": "…"}                  preference_pairs.jsonl
{"prompt": "Name a colour.", "response": "Red."}                                           a short instruction
{"messages": [{"role": "user", …}, {"role": "assistant", "content": "Red."}]}

A policy gets single questions here, after a system prompt if there is one. Of an answered chat the first question and
its answer are used; a preference after several turns is rejected, unless the caller reads them as one text.
"""

from collections.abc import Mapping

from pydantic import Field

from longreward.config import Config
from longreward.data.chats import Message, join_paragraphs, parse_messages
from longreward.data.formats import parse_id
from longreward.data.hub_source import HubConfig
from longreward.data.short_ids import SHORT_PREFIX, has_short_prefix
from longreward.records import Example, PreferencePair, Response
from longreward.utils.jsonl import Row, RowError, missing_key

PUBLISHED_COLUMNS = {"prompt": "query", "chosen": "win_response", "rejected": "lose_response"}


class PairsConfig(Config):
    """Preference pairs that are part of the data, for `pair.method: given`."""

    source: str | None = None
    """Pairs to train on instead of pairs that the pipeline creates, in any form that `prepare.source` accepts.
    `sample` and `score` then create nothing and `pair` passes the pairs on; requires `pair.method: given`. null:
    none."""

    checksum: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")
    """Expected checksum of the source. Required outside data/raw."""

    hub: HubConfig = HubConfig()
    """Which part of a hub data set."""

    idx: str | None = None
    """Column of the pair's id; null: pairs are numbered from 0."""

    prompt: str = "prompt"
    """Column of the question, a text or a chat of one turn. May be missing if chosen and rejected are chats that
    contain it."""

    context: str = "context"
    """Column of the document. May be missing: the prompt then contains everything."""

    chosen: str = "chosen"
    """Column of the better response, a text or a chat that ends with it."""

    rejected: str = "rejected"
    """Column of the worse response, a text or a chat that ends with it."""


def preference_from_row(row: Row, config: PairsConfig, number: int, *, several_turns: bool = False) -> PreferencePair:
    """Return the pair of a row; `number` counts the rows from 0.

    With `several_turns`, the query of a longer conversation is all of it, with the role before each turn. Raises
    RowError if the row cannot be used.
    """
    if config.idx is not None and config.idx not in row:
        raise missing_key(config.idx, row)
    pair_id = str(number) if config.idx is None else parse_id(row[config.idx])
    if has_short_prefix(pair_id):
        raise RowError(
            f"idx {pair_id!r} begins with {SHORT_PREFIX!r}, which is reserved for the instructions of train.short"
        )
    columns = {"prompt": config.prompt, "chosen": config.chosen, "rejected": config.rejected}
    context_column = config.context
    # The configured columns take precedence over the fields of preference_pairs.jsonl.
    if not row.keys() & {config.chosen, config.rejected} and row.keys() >= {"win_response", "lose_response"}:
        columns, context_column = PUBLISHED_COLUMNS, "context"
    query, chosen, rejected = _parse_preference(row, columns, several_turns=several_turns)
    if context_column not in row and context_column != "context":  # the default may be missing
        raise missing_key(context_column, row)
    context = join_paragraphs(row.get(context_column), context_column)
    if not isinstance(context, str | None):
        raise RowError(f"{context_column} is {type(context).__name__}, expected text")
    return given_pair(pair_id, context=context or "", query=query, chosen=chosen, rejected=rejected)


def given_pair(pair_id: str, *, context: str, query: str, chosen: str, rejected: str) -> PreferencePair:
    """Return a pair whose preference is part of the data, so that it has no rewards."""

    def response(number: int, text: str) -> Response:
        return Response(id=f"{pair_id}-{number}", example_id=pair_id, query=query, text=text)

    return PreferencePair(
        id=pair_id,
        context=context,
        query=query,
        chosen=response(0, chosen),
        rejected=response(1, rejected),
        chosen_reward=None,
        rejected_reward=None,
        method="given",
    )


def short_pair_from_row(row: Row | RowError, columns: Mapping[str, str], *, number: int) -> PreferencePair:
    """Return the pair `short/<number>`; `columns` names those of `prompt`, `chosen` and `rejected`.

    Raises RowError if the row cannot be used.
    """
    if isinstance(row, RowError):
        raise row
    query, chosen, rejected = _parse_preference(row, columns)
    return short_pair(number, query=query, chosen=chosen, rejected=rejected)


def short_example_from_row(row: Row | RowError, columns: Mapping[str, str], *, number: int) -> Example:
    """Return the example `short/<number>`; `columns` names those of `prompt` and `answer`.

    Raises RowError if the row cannot be used.
    """
    if isinstance(row, RowError):
        raise row
    query, answer = _prompt_and_response(row, columns["answer"], first=True)
    if query is None:
        query = _parse_prompt(row, columns["prompt"])
    if query is None:
        raise missing_key(columns["prompt"], row)
    _check_not_blank({columns["prompt"]: query, columns["answer"]: answer})
    return short_example(number, query=query, answer=answer)


def short_pair(number: int, *, query: str, chosen: str, rejected: str) -> PreferencePair:
    """Return the pair of a short instruction."""
    return given_pair(f"{SHORT_PREFIX}{number}", context="", query=query, chosen=chosen, rejected=rejected)


def short_example(number: int, *, query: str, answer: str | None = None) -> Example:
    """Return the example of a short instruction, which is its own document."""
    example_id = f"{SHORT_PREFIX}{number}"
    return Example(id=example_id, document_id=example_id, context="", query=query, answer=answer)


def _parse_preference(row: Row, columns: Mapping[str, str], *, several_turns: bool = False) -> tuple[str, str, str]:
    """Return question, better and worse response."""
    if row.get("tools"):
        raise RowError("the row has tools, which are not supported; remove such rows")
    chosen_prompt, chosen = _prompt_and_response(row, columns["chosen"], several_turns=several_turns)
    rejected_prompt, rejected = _prompt_and_response(row, columns["rejected"], several_turns=several_turns)
    prompt = _parse_prompt(row, columns["prompt"], several_turns=several_turns)
    if chosen_prompt is not None and rejected_prompt is not None and chosen_prompt != rejected_prompt:
        raise RowError(f"{columns['chosen']} and {columns['rejected']} have different prompts")
    # The chats take precedence: the prompt column may lack the system prompt.
    query = chosen_prompt or rejected_prompt or prompt
    if query is None:
        raise missing_key(columns["prompt"], row)
    _check_not_blank({columns["prompt"]: query, columns["chosen"]: chosen, columns["rejected"]: rejected})
    if chosen == rejected:
        raise RowError("both responses are the same")
    return query, chosen, rejected


def _prompt_and_response(
    row: Row, column: str, *, first: bool = False, several_turns: bool = False
) -> tuple[str | None, str]:
    """Return the prompt, if the column contains it too, and the response: the last turn, or the first reply."""
    value = row.get(column)
    if isinstance(value, str):
        return None, value
    messages = parse_messages(value, name=column, expected="a text or a chat")
    replies = [index for index, message in enumerate(messages) if message.role == "assistant"]
    if first and not replies:
        raise RowError(f"{column} is a chat without an assistant's turn")
    if not first and len(messages) - 1 not in replies:
        raise RowError(f"{column} is a chat that does not end with the assistant's turn")
    index = replies[0] if first else len(messages) - 1
    prompt = join_prompt(messages[:index], column, several_turns=several_turns) if index else None
    return prompt, messages[index].text


def _parse_prompt(row: Row, column: str, *, several_turns: bool = False) -> str | None:
    """Return the question of a column that contains a text, a chat, or nothing."""
    value = row.get(column)
    if value is None or isinstance(value, str):
        return value
    messages = parse_messages(value, name=column, expected="a text or a chat")
    return join_prompt(messages, column, several_turns=several_turns)


def join_prompt(messages: list[Message], column: str, *, several_turns: bool = False) -> str:
    """Return the only user message, after the system prompt if there is one.

    A conversation of several turns raises RowError, or with `several_turns` becomes one text with the role of each.
    """
    roles = [message.role for message in messages]
    texts = [message.text for message in messages]
    if roles not in (["user"], ["system", "user"]):
        if not several_turns or roles[-1:] != ["user"]:
            advice = "a prompt ends with the user's turn" if several_turns else "only single questions are supported"
            raise RowError(f"{column} is a chat of several turns ({', '.join(roles)}); {advice}")
        texts = [f"{role.capitalize()}: {text}" for role, text in zip(roles, texts, strict=True) if text.strip()]
    return "\n\n".join(text for text in texts if text.strip())


def _check_not_blank(texts: Mapping[str, str]) -> None:
    for column, text in texts.items():
        if not text.strip():
            raise RowError(f"{column} is empty")
