"""One question's attempts: what was asked and answered, how a reply is read, and what to ask next.

    attempt  limit   temperature
    1        512     0.01         cut at the limit
    2        1,024   0.01         cut again: more room alone did not help
    3        2,048   0.95         readable

A question with a larger limit is another question to the ledger, whose key holds the limit. So no cut reply can be
served as the reply to a request that had more room, and the way up is found again from the ledger after a kill.

Attempts are made in rounds of `judge.max_attempts`. A run finishes the round that an interrupted run began; where that
is complete and the question still unreadable, a new run begins a new round, as its judge may have been mended.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from longreward.chat_model import ChatReply, ChatRequest, TokenUsage
from longreward.judge.config import JudgeConfig
from longreward.judge.ledger import Exchange
from longreward.judge.reasoning import has_reasoning, strip_reasoning
from longreward.judge.truncation import ReadTruncated

T = TypeVar("T")


@dataclass(frozen=True)
class Attempt:
    """One request to make: `question` with its token limit, and its key in the ledger."""

    question: ChatRequest
    key: str
    number: int
    temperature: float
    is_raised: bool
    """Whether the limit is larger than the prompt's own."""


@dataclass(frozen=True)
class ReplyParser(Generic[T]):
    """How the replies to one question are read. `read_truncated` None: a cut reply is read as any other."""

    config: JudgeConfig
    read: Callable[[str], T | None]
    read_truncated: ReadTruncated[T] | None

    def complete(self, answer: ChatReply) -> T | None:
        """The value of a reply that holds all that was asked for."""
        text = self._text(answer)
        if self.read_truncated is None or answer.finish_reason != "length":
            return self.read(text)
        found = self.read_truncated(text)
        return found.value if found is not None and found.is_complete else None

    def partial(self, answer: ChatReply) -> T | None:
        """The value of the complete part of a cut reply, where the settings let it count."""
        if self.read_truncated is None or self.config.truncated_replies != "complete_part":
            return None
        found = self.read_truncated(self._text(answer)) if answer.finish_reason == "length" else None
        return found.value if found is not None else None

    def is_truncated(self, answer: ChatReply) -> bool:
        """Whether more room might have made the reply complete."""
        return self.read_truncated is not None and answer.finish_reason == "length" and self.complete(answer) is None

    def _text(self, answer: ChatReply) -> str:
        return strip_reasoning(answer, thinks=self.config.thinking_tokens > 0)


class Attempts(Generic[T]):
    """The exchanges about one question, in order; `key_of` and `recorded` are the ledger's."""

    def __init__(
        self,
        question: ChatRequest,
        parser: ReplyParser[T],
        *,
        key_of: Callable[[ChatRequest], str],
        recorded: Callable[[str], list[Exchange]],
        largest_limit: int,
    ) -> None:
        self.parser = parser
        self.exchanges: list[Exchange] = []
        self._config = parser.config
        self._base = self._question = question
        self._key_of = key_of
        self._largest = max(largest_limit, question.max_tokens)
        self._limits = [question.max_tokens]
        while True:
            for exchange in recorded(self._key_of(self._question)):
                if self._has_our_temperature(exchange):
                    self.exchanges.append(exchange)
            if not self._raise_limit():
                break
        self.exchanges.sort(key=lambda exchange: exchange.attempt)

    def add(self, exchange: Exchange) -> None:
        """Takes in the reply to the attempt that `next` gave."""
        self.exchanges.append(exchange)
        self._raise_limit()

    def keep_limit(self) -> None:
        """The server takes no larger limit than the one before: ask with that from now on."""
        self._limits.pop()
        self._largest = self._limits[-1]
        self._question = replace(self._question, max_tokens=self._largest)

    def next(self) -> Attempt:
        """The request to make now."""
        key = self._key_of(self._question)
        number = 1 + max((exchange.attempt for exchange in self.exchanges), default=0)
        in_round = len(self.exchanges) % self._config.max_attempts
        # The first retry of a cut reply keeps the temperature: it lacked room, not the format. If it is cut again, the
        # model may be in a loop, which another temperature gets it out of.
        is_first = in_round == 0
        if in_round == 1:
            last = self.exchanges[-1]
            is_first = self.parser.is_truncated(last.reply) and last.request_id != key
        temperature = self._config.first_temperature if is_first else self._config.retry_temperature
        is_raised = self._question.max_tokens > self._base.max_tokens
        return Attempt(self._question, key, number, temperature, is_raised)

    @property
    def is_round_complete(self) -> bool:
        """Whether this run may ask no more."""
        return bool(self.exchanges) and len(self.exchanges) % self._config.max_attempts == 0

    def readable(self) -> tuple[Exchange, T] | None:
        """A reply that settles the question, with its value."""
        for exchange in self.exchanges:
            if exchange.outcome != "refused" and (value := self.parser.complete(exchange.reply)) is not None:
                return exchange, value
        return None

    def refused(self) -> Exchange | None:
        """The exchange in which a content filter declined the question: asking again never helps."""
        return next((exchange for exchange in self.exchanges if exchange.outcome == "refused"), None)

    def partial(self) -> tuple[Exchange, T] | None:
        """The complete part of the last cut reply, once no larger limit is left to try, or no attempt."""
        cut = [exchange for exchange in self.exchanges if self.parser.is_truncated(exchange.reply)]
        if not cut or not (self._is_cut_at_largest(cut[-1]) or self.is_round_complete):
            return None
        for exchange in reversed(cut):
            if (value := self.parser.partial(exchange.reply)) is not None:
                return exchange, value
        return None

    def _is_cut_at_largest(self, exchange: Exchange) -> bool:
        return exchange.request_id == self._key_of(replace(self._base, max_tokens=self._largest))

    def _raise_limit(self) -> bool:
        """Doubles the limit where a reply was cut at the present one, and there is room."""
        limit = self._limits[-1]
        key = self._key_of(self._question)
        cut = any(each.request_id == key and self.parser.is_truncated(each.reply) for each in self.exchanges)
        if not cut or limit >= self._largest:
            return False
        self._limits.append(min(2 * limit, self._largest))
        self._question = replace(self._question, max_tokens=self._limits[-1])
        return True

    def _has_our_temperature(self, exchange: Exchange) -> bool:
        first, retry = self._config.first_temperature, self._config.retry_temperature
        return exchange.temperature == first or (exchange.attempt > 1 and exchange.temperature == retry)


# What a question came to, made of the exchanges about it.


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
        more = room if has_reasoning(answer) else "judge.max_reply_tokens is the largest limit that is tried"
        return f"the answer was cut at the token limit ({limit:,} tokens; {more}): …{_end(spoken)}"
    if not spoken and has_reasoning(answer):
        return "the answer is empty: it was all marked as thought; check the server's reasoning parser"
    return f"the answer holds no verdict in the asked form: …{_end(spoken)}" if spoken else "the answer is empty"


def _end(text: str) -> str:
    return text[-80:].replace("\n", " ")


def _shown(answer: ChatReply) -> str:
    """What was said; where nothing was, the thought, for people to look at."""
    spoken = strip_reasoning(answer).strip()
    return spoken if has_reasoning(answer) and spoken else answer.text


def _sum(made: Sequence[Exchange]) -> TokenUsage:
    usages = [exchange.reply.usage for exchange in made]
    return TokenUsage(
        sum(usage.prompt_tokens for usage in usages),
        sum(usage.completion_tokens for usage in usages),
        sum(usage.cached_tokens for usage in usages),
    )
