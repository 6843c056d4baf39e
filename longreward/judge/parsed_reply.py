"""What a question came to, made of the exchanges about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from longreward.chat_model import ChatReply, TokenUsage
from longreward.judge.ledger import Exchange
from longreward.judge.reasoning import has_thought, strip_reasoning

T = TypeVar("T")


@dataclass(frozen=True)
class ParsedReply(Generic[T]):
    """What a question came to. `value` is None exactly where `reason` says why; `text` is what the judge said last.

    `attempts` and `usage` count the exchanges behind it, whenever they happened, so that a resumed run yields the same
    records; `calls` counts those made now (0: all from the ledger, or shared with an equal question). Thoughts are in
    the ledger only. `truncated`: the value is the complete part of a reply that was cut at its token limit.
    """

    value: T | None
    reason: str | None
    text: str
    attempts: int
    calls: int
    usage: TokenUsage
    judge: str
    truncated: bool = False


def reading_of(
    made: Sequence[Exchange], value: T | None, settled_by: Exchange, *, truncated: bool = False
) -> ParsedReply[T]:
    """The reading that one exchange settled, after all those `made`."""
    reason = settled_by.reason if value is None else None
    shown = _shown(settled_by.reply)
    return ParsedReply(value, reason, shown, len(made), 0, _sum(made), settled_by.judge, truncated)


def exhausted(made: Sequence[Exchange], *, calls: int) -> ParsedReply[Any]:
    """The reading of a question of which no answer could be read."""
    last = made[-1]
    reason = f"no readable answer in {len(made)} attempts; the last: {last.reason}"
    return ParsedReply(None, reason, _shown(last.reply), len(made), calls, _sum(made), last.judge)


def failed(made: Sequence[Exchange], reason: str, *, calls: int, judge: str) -> ParsedReply[Any]:
    """The reading of a question whose next attempt got no answer at all."""
    return ParsedReply(None, reason, "", len(made), calls, _sum(made), judge)


def why_unreadable(answer: ChatReply, *, thinking_tokens: int, limit: int) -> str:
    """Why no verdict was found, and which setting helps; `limit` is in tokens, those for thinking among them."""
    spoken = strip_reasoning(answer, thinks=thinking_tokens > 0).strip()
    room = f"raise judge.thinking_tokens, which is {thinking_tokens:,}"
    if answer.finish_reason == "length" and not spoken:
        return f"the answer is empty: all tokens went into thinking (cut at {limit:,} tokens); {room}"
    if answer.finish_reason == "length":
        more = room if has_thought(answer) else "judge.max_reply_tokens is the largest limit that is tried"
        return f"the answer was cut at the token limit ({limit:,} tokens; {more}): …{_end(spoken)}"
    if not spoken and has_thought(answer):
        return "the answer is empty: it was all marked as thought; check the server's reasoning parser"
    return f"the answer holds no verdict in the asked form: …{_end(spoken)}" if spoken else "the answer is empty"


def _end(text: str) -> str:
    return text[-80:].replace("\n", " ")


def _shown(answer: ChatReply) -> str:
    """What was said; where nothing was, the thought, for people to look at."""
    spoken = strip_reasoning(answer).strip()
    return spoken if has_thought(answer) and spoken else answer.text


def _sum(made: Sequence[Exchange]) -> TokenUsage:
    usages = [exchange.reply.usage for exchange in made]
    return TokenUsage(
        sum(usage.prompt_tokens for usage in usages),
        sum(usage.completion_tokens for usage in usages),
        sum(usage.cached_tokens for usage in usages),
    )
