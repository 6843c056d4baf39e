"""The attempts at one request: what was sent and received, how a reply is parsed, and what to send next.

    attempt  max_tokens  temperature                 attempt  messages                           temperature
    1        512         0.01         truncated      1        prompt                             0.01     unreadable
    2        1,024       0.01         truncated      2        prompt, reply to 1, reminder       0.01     unreadable
    3        2,048       0.95         readable       3        prompt                             0.95     unreadable
                                                     4        prompt, reply to 3, reminder       0.01     readable

A reminder continues the conversation with one line on the format (`ReplyFormat.reminder`). Another temperature alone
rarely helps a small model: it gives its opinion and forgets the form again. A verdict that is missing after a truncated
reply with the second limit, or after one that repeats itself, is requested in the same way. In JSON, a reminder has a
schema with the verdict alone, and an analysis that repeats itself is first requested anew with the other temperature.

A request with a larger `max_tokens`, or with a reminder, has another key in the ledger. So a truncated reply is never
served for a request with a larger limit, and after an interruption the attempts are reconstructed from the ledger.

Attempts come in rounds of `judge.max_attempts`. A run completes the round that an interrupted run began. If a round is
complete and the request still unreadable, the next run starts a new round, as its judge may be repaired.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from longreward.chat_model import ChatReply, ChatRequest, TokenUsage
from longreward.judge.config import JudgeConfig
from longreward.judge.continuation import cut_continuation
from longreward.judge.ledger import Exchange
from longreward.judge.reasoning import has_reasoning, strip_reasoning
from longreward.judge.structured_output import readable_text, verdict_schema
from longreward.judge.truncation import TruncatedParser

T = TypeVar("T")

EXCERPT = 80  # characters from the end of an unreadable reply, for messages


@dataclass(frozen=True)
class ParsedReply(Generic[T]):
    """The outcome of a request.

    `attempts` and `usage` count all recorded exchanges, whenever they happened, so a resumed run yields the same
    records. `calls` counts only those of now (0: all from the ledger, or shared with an equal request).
    """

    value: T | None
    """The parsed value; None if and only if `reason` is set."""
    reason: str | None
    text: str
    """The text of the last reply, without reasoning."""
    attempts: int
    calls: int
    usage: TokenUsage
    judge: str
    truncated: bool = False
    """Whether `value` is the complete part of a reply that was cut off at its token limit."""


@dataclass(frozen=True)
class Attempt:
    """One request to send: `request` with its token limit, and its key in the ledger."""

    request: ChatRequest
    key: str
    number: int
    temperature: float
    has_raised_limit: bool
    """Whether the token limit is larger than that of the prompt."""

    @property
    def has_reminder(self) -> bool:
        """Whether the request continues the conversation with a reminder of the format."""
        return bool(self.request.turns)


class Attempts(Generic[T]):
    """All exchanges about one request, in order: those in the ledger, and those that `add` appends.

    Args:
        request: as it was first made.
        parse: returns the value in the text of a reply, or None.
        parse_truncated: does so for truncated replies; None: they are parsed like any other.
        config: the section `judge`.
        key: the ledger's key of `request`.
        key_for: returns the ledger's key of a request.
        find_exchanges: returns the exchanges under a key.
        max_tokens_limit: the largest token limit to try.
    """

    def __init__(
        self,
        request: ChatRequest,
        parse: Callable[[str], T | None],
        parse_truncated: TruncatedParser[T] | None,
        config: JudgeConfig,
        *,
        key: str,
        key_for: Callable[[ChatRequest], str],
        find_exchanges: Callable[[str], list[Exchange]],
        max_tokens_limit: int,
    ) -> None:
        self.exchanges: list[Exchange] = []
        self._parse = parse
        self._parse_truncated = parse_truncated
        self._config = config
        self._original = self._current = request
        self._key_for = key_for
        self._max_limit = max(max_tokens_limit, request.max_tokens)
        self._limits = [request.max_tokens]
        self._requests = {key: request}  # by key
        self._complete_values: dict[ChatReply, T | None] = {}
        self._reminds = bool(request.reply_format.reminder)
        self._find_exchanges = find_exchanges
        # Recorded exchanges with a raised limit have other keys: follow the sequence of limits as far as it was made.
        while True:
            recorded = self._find_recorded(self._current)
            self.exchanges += recorded
            for exchange in recorded:
                if (reminder := self._reminder_after(exchange)) is not None:
                    self.exchanges += self._find_recorded(reminder)
            if not self._raise_limit():
                break
        self.exchanges.sort(key=lambda exchange: exchange.attempt)

    def next(self) -> Attempt:
        """Return the attempt to make now."""
        number = 1 + max((exchange.attempt for exchange in self.exchanges), default=0)
        position = len(self.exchanges) % self._config.max_attempts
        if position > 0 and (reminder := self._reminder_after(self.exchanges[-1])) is not None:
            has_raised_limit = reminder.max_tokens > self._original.max_tokens
            return Attempt(reminder, self._key(reminder), number, self._config.first_temperature, has_raised_limit)
        key = self._key(self._current)
        # The first retry of a truncated reply keeps the temperature: it lacked tokens, its format may be fine. If it is
        # truncated again, or repeats itself, another temperature ends the repetition.
        is_first = position == 0 or (
            position == 1
            and self.is_truncated(self.exchanges[-1].reply)
            and self.exchanges[-1].request_id != key
            and not self._ends_in_analysis_loop(self.exchanges[-1])
        )
        temperature = self._config.first_temperature if is_first else self._config.retry_temperature
        has_raised_limit = self._current.max_tokens > self._original.max_tokens
        return Attempt(self._current, key, number, temperature, has_raised_limit)

    def add(self, exchange: Exchange) -> None:
        """Append the exchange of the attempt that `next` returned."""
        self.exchanges.append(exchange)
        self._raise_limit()

    def reject_reminder(self) -> None:
        """Send no reminders any more: the server does not accept the continued conversation."""
        self._reminds = False

    def reject_raised_limit(self) -> None:
        """Go back to the previous token limit for good: the server does not accept the raised one."""
        self._limits.pop()
        self._max_limit = self._limits[-1]
        self._current = replace(self._current, max_tokens=self._max_limit)

    @property
    def is_round_complete(self) -> bool:
        """Whether this run may make no further attempt."""
        return bool(self.exchanges) and len(self.exchanges) % self._config.max_attempts == 0

    def result(self) -> ParsedReply[T] | None:
        """Return the outcome if an exchange decides it: a readable reply, a refusal, or the last truncated reply."""
        for exchange in self.exchanges:
            if exchange.outcome != "refused" and (value := self.complete_value(exchange.reply)) is not None:
                return self._parsed_reply(exchange, value, None)
        for exchange in self.exchanges:
            if exchange.outcome == "refused":  # by a content filter, which would refuse again
                return self._parsed_reply(exchange, None, exchange.reason)
        truncated = [exchange for exchange in self.exchanges if self.is_truncated(exchange.reply)]
        if not truncated:
            return None
        last_key = self._key_for(replace(self._original, max_tokens=self._max_limit))
        if truncated[-1].request_id == last_key or self.is_round_complete:
            for exchange in reversed(truncated):
                if (value := self.partial_value(exchange.reply)) is not None:
                    return replace(self._parsed_reply(exchange, value, None), truncated=True)
        return None

    def unreadable_result(self) -> ParsedReply[T]:
        """Return the outcome of a complete round without a readable reply."""
        last = self.exchanges[-1]
        reason = f"no readable answer in {len(self.exchanges)} attempts; the last: {last.reason}"
        return self._parsed_reply(last, None, reason)

    def failed_result(self, reason: str, *, judge: str) -> ParsedReply[T]:
        """Return the outcome of a request whose next attempt got no reply."""
        return ParsedReply(None, reason, "", len(self.exchanges), 0, self._total_usage(), judge)

    def complete_value(self, reply: ChatReply) -> T | None:
        """Parse a reply that contains everything that was requested."""
        if reply not in self._complete_values:
            self._complete_values[reply] = self._parse_complete(reply)
        return self._complete_values[reply]

    def _parse_complete(self, reply: ChatReply) -> T | None:
        text = self._text(reply)
        # Where it was cut, the limit came after the reply proper.
        is_whole = reply.finish_reason != "length" or text != self._uncut_text(reply)
        if self._parse_truncated is None or is_whole:
            return self._parse(text)
        parsed = self._parse_truncated(text)
        return parsed.value if parsed is not None and parsed.is_complete else None

    def partial_value(self, reply: ChatReply) -> T | None:
        """Parse the complete part of a truncated reply, if judge.truncated_replies accepts it."""
        if self._parse_truncated is None or self._config.truncated_replies != "complete_part":
            return None
        parsed = self._parse_truncated(self._text(reply))
        return parsed.value if parsed is not None else None

    def is_truncated(self, reply: ChatReply) -> bool:
        """Whether a larger token limit might have made the reply complete."""
        if self._parse_truncated is None or reply.finish_reason != "length":
            return False
        return self._text(reply) == self._uncut_text(reply) and self.complete_value(reply) is None

    def unreadable_reason(self, reply: ChatReply, *, max_tokens: int) -> str:
        """Explain why a reply has no value, and which setting helps; `max_tokens` is the limit that was sent."""
        text = self._text(reply).strip()
        end = text[-EXCERPT:].replace("\n", " ")
        advice = f"raise judge.thinking_tokens, which is {self._config.thinking_tokens:,}"
        if reply.finish_reason == "length" and not text:
            return f"the answer is empty: all tokens went into thinking (cut at {max_tokens:,} tokens); {advice}"
        tokens = reply.usage.completion_tokens
        if reply.finish_reason == "length" and 0 < tokens < max_tokens:
            advice = "the server's context window is full, or it has a lower limit of its own"
            return f"the answer was cut after {tokens:,} of at most {max_tokens:,} tokens ({advice}): …{end}"
        if reply.finish_reason == "length":
            if not has_reasoning(reply):
                advice = "judge.max_reply_tokens is the largest limit that is tried"
            return f"the answer was cut at the token limit ({max_tokens:,} tokens; {advice}): …{end}"
        if not text and has_reasoning(reply):
            return "the answer is empty: it was all marked as thought; check the server's reasoning parser"
        return f"the answer holds no verdict in the asked form: …{end}" if text else "the answer is empty"

    def _text(self, reply: ChatReply) -> str:
        return cut_continuation(self._uncut_text(reply), self._original.reply_format)

    def _uncut_text(self, reply: ChatReply) -> str:
        return strip_reasoning(reply, thinks=self._config.thinking_tokens > 0)

    def _key(self, request: ChatRequest) -> str:
        for key, known in self._requests.items():
            if known is request:  # hashing a long prompt takes a while
                return key
        key = self._key_for(request)
        self._requests[key] = request
        return key

    def _find_recorded(self, request: ChatRequest) -> list[Exchange]:
        """Return the recorded exchanges of a request that count as attempts of this run."""
        exchanges = []
        for exchange in self._find_exchanges(self._key(request)):
            # Exchanges of a run with other temperatures do not.
            is_retry = exchange.attempt > 1 and exchange.temperature == self._config.retry_temperature
            if is_retry or exchange.temperature == self._config.first_temperature:
                exchanges.append(exchange)
        return exchanges

    def _reminder_after(self, exchange: Exchange) -> ChatRequest | None:
        """Return the request that reminds the judge of the format after its reply; None where that makes no sense.

        An empty reply would be a message without content, and a judge that ignored one reminder does better with a new
        start. A truncated list lacks tokens, and so may an analysis. But a small judge that repeats itself, or whose
        analysis does not end within twice the limit, would only go on: it is asked for the verdict.
        """
        request, reply = self._requests[exchange.request_id], exchange.reply
        text = self._text(reply).strip()
        if not self._reminds or request.turns or not text or exchange.outcome == "refused":
            return None
        if self.complete_value(reply) is not None:
            return None
        # A reminder would get a verdict that rests on no analysis: a small judge gave a constant.
        if self._ends_in_analysis_loop(exchange) and exchange.temperature == self._config.first_temperature:
            return None
        if self.is_truncated(reply):
            can_raise_limit = request.max_tokens == self._original.max_tokens < self._max_limit
            if self._original.reply_format.is_list or (can_raise_limit and not repeats_itself(text)):
                return None
        reply_format = request.reply_format
        if reply_format.schema is not None:
            # A judge that has to write an analysis first may repeat itself again.
            reply_format = replace(reply_format, schema=verdict_schema(reply_format.schema))
        return replace(request, turns=((text, reply_format.reminder),), reply_format=reply_format)

    def _ends_in_analysis_loop(self, exchange: Exchange) -> bool:
        """Whether the analysis in a JSON reply repeats itself up to the token limit."""
        reply_format = self._original.reply_format
        is_verdict = reply_format.schema is not None and not reply_format.is_list
        return is_verdict and self.is_truncated(exchange.reply) and repeats_itself(self._text(exchange.reply).strip())

    def _parsed_reply(self, exchange: Exchange, value: T | None, reason: str | None) -> ParsedReply[T]:
        text = strip_reasoning(exchange.reply).strip()
        # A reply of reasoning only is shown as it is, so that people see what the model wrote.
        if not text or not has_reasoning(exchange.reply):
            text = exchange.reply.text
        text = cut_continuation(text, self._original.reply_format)
        if (schema := self._original.reply_format.schema) is not None:
            text = readable_text(text, schema)
        # The reply to a reminder is often the verdict alone; its analysis is in the reply before.
        text = "\n\n".join([*(previous for previous, _ in self._requests[exchange.request_id].turns), text])
        return ParsedReply(value, reason, text, len(self.exchanges), 0, self._total_usage(), exchange.judge)

    def _total_usage(self) -> TokenUsage:
        usages = [exchange.reply.usage for exchange in self.exchanges]
        return TokenUsage(
            sum(usage.prompt_tokens for usage in usages),
            sum(usage.completion_tokens for usage in usages),
            sum(usage.cached_tokens for usage in usages),
        )

    def _raise_limit(self) -> bool:
        """Double the token limit if a reply was truncated at the current one and a larger one is allowed."""
        limit = self._limits[-1]
        key = self._key(self._current)
        is_truncated = any(
            exchange.request_id == key and self.is_truncated(exchange.reply) for exchange in self.exchanges
        )
        if not is_truncated or limit >= self._max_limit:
            return False
        self._limits.append(min(2 * limit, self._max_limit))
        self._current = replace(self._current, max_tokens=self._limits[-1])
        return True


def repeats_itself(text: str) -> bool:
    """Whether the end of a text is a loop: what it ends with occurs three times."""
    return len(text) > 3 * EXCERPT and text.count(text[-EXCERPT:]) >= 3
