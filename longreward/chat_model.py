"""The interface of a chat model: requests, replies and token probabilities.

A request carries the name and the slots of its template besides the rendered text: a model behind HTTP gets the text,
the offline judge computes its reply from the slots.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class ReplyFormat:
    """What is known about the format of the replies to a template.

    Only the schema is part of the ledger's key: the rest decides where a reply ends and how an unreadable one is
    requested again, but not what a complete reply says.
    """

    headings: tuple[str, ...] = ()
    """Headings of the prompt's sections, with `{name}` for a number. A reply that repeats one after its verdict
    continues the examples of the prompt."""
    stop: tuple[str, ...] = ()
    """Stop sequences that occur in no reply before its end, the most frequent one first."""
    is_list: bool = False
    """Whether the whole reply is a list; otherwise it ends with a verdict."""
    reminder: str = ""
    """The next user message after an unreadable reply: one line on the format. Empty: the request is only repeated."""
    schema: Mapping[str, Any] | None = None
    """The JSON schema of the reply, which the server enforces; None: the reply is text."""
    structured: "RequestTemplate | None" = None
    """The prompt that asks for JSON instead, for servers that support schemas; None: there is none."""
    list_length: int | None = None
    """How many items the list has, where the prompt fixes their number; None: any number."""


ANY_FORMAT = ReplyFormat()


@dataclass(frozen=True)
class ChatRequest:
    """A fully rendered request to a chat model."""

    template: str
    """Such as "helpfulness", "logicality", "statements", "support", "extraction" or "completeness"."""
    slots: Mapping[str, str]
    """What was filled into <<question>>, <<answer>>, <<context>>, <<statement>>."""
    text: str
    prompt_hash: str
    """Hash of the template file, not of the rendered text."""
    max_tokens: int
    system: str = ""
    """The system prompt of this request; it follows the one that the judge's settings add."""
    top_logprobs: int = 0
    """How many of the likeliest tokens to return with their probabilities, at each position of the reply."""
    reply_format: ReplyFormat = ANY_FORMAT
    turns: tuple[tuple[str, str], ...] = ()
    """A continued conversation: each reply to this request so far, and the user message after it."""

    def messages(self, configured_system: str = "") -> list[dict[str, str]]:
        """Return the conversation in the form of the OpenAI protocol."""
        system = self.system_prompt(configured_system)
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": self.text})
        for reply, message in self.turns:
            messages += [{"role": "assistant", "content": reply}, {"role": "user", "content": message}]
        return messages

    def prompt_text(self, configured_system: str = "") -> str:
        """Return all messages joined, to estimate the tokens of the prompt."""
        return "".join(message["content"] for message in self.messages(configured_system))

    def system_prompt(self, configured: str) -> str:
        """Join the system prompt of the judge's settings and that of the request."""
        return "\n\n".join(part for part in (configured, self.system) if part)


class RequestTemplate(Protocol):
    """Anything that makes requests from slots."""

    def request(self, slots: Mapping[str, str], *, system: str = "", max_tokens: int | None = None) -> ChatRequest:
        """Return the request with all slots filled."""


@dataclass(frozen=True)
class TokenUsage:
    """Tokens as the provider counts them; zeros where it does not report them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """The part of the prompt tokens that the provider took from its cache."""
    cache_write_tokens: int = 0
    """The part that it wrote to its cache, which only costs extra at Anthropic; no part of the ledger."""


@dataclass(frozen=True)
class ChatReply:
    """A reply of a chat model. An empty text is a reply too: it is unreadable and requested again."""

    text: str
    finish_reason: str = "stop"
    usage: TokenUsage = TokenUsage()
    model: str = ""


class ChatModel(Protocol):
    """Anything that replies to chat requests."""

    @property
    def name(self) -> str:
        """The name under which the ledger and every score record the model."""

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        """Return one reply; raises JudgeError where there is none."""

    async def close(self) -> None:
        """Close connections."""


def estimate_tokens(text: str) -> int:
    """Estimate the token count: 3.5 bytes a token, in English (1 byte a letter) and Chinese (3 a character) alike."""
    return int(len(text.encode("utf-8", "replace")) / 3.5)


@dataclass(frozen=True)
class TextWithLogprobs:
    """The text of a reply and, for each of its tokens, the log probabilities of the likeliest tokens."""

    text: str
    top_logprobs: tuple[Mapping[str, float], ...]
    """Empty where the server returned none."""


def with_logprobs(text: str, logprobs: Any) -> str:
    """Join a text and the `logprobs` of its choice (OpenAI format) in one string, which the ledger can store.

    >>> with_logprobs("m", {"content": [{"token": "m", "top_logprobs": [{"token": "m", "logprob": -0.02}]}]})
    '{"text": "m", "top_logprobs": [{"m": -0.02}]}'

    Returns the plain text where the server sent no probabilities. Only replies to requests with `top_logprobs` have
    this form.
    """
    tokens = [_top_logprobs(token) for token in logprobs.get("content") or []] if isinstance(logprobs, dict) else []
    if not any(tokens):
        return text
    rows = ", ".join("{" + ", ".join(f"{_quote(name)}: {p!r}" for name, p in top.items()) + "}" for top in tokens)
    return f'{{"text": {_quote(text)}, "top_logprobs": [{rows}]}}'


def parse_logprobs(text: str) -> TextWithLogprobs:
    """Split what `with_logprobs` joined; any other text is returned without probabilities."""
    try:
        row = json.loads(text)
        tokens = tuple({str(name): float(p) for name, p in top.items()} for top in row["top_logprobs"])
        return TextWithLogprobs(str(row["text"]), tokens)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return TextWithLogprobs(text, ())


def _top_logprobs(token: Any) -> dict[str, float]:
    top: dict[str, float] = {}
    for candidate in token.get("top_logprobs") or [] if isinstance(token, dict) else []:
        name, logprob = candidate.get("token"), candidate.get("logprob")
        if isinstance(name, str) and isinstance(logprob, int | float) and math.isfinite(logprob):
            # Incomplete UTF-8 sequences share one name ("\ufffd"); servers send the likeliest first, which counts.
            top.setdefault(name, float(logprob))
    return top


def _quote(text: str) -> str:
    # `<` and `[` open the tags that reasoning.py strips, and a token that equals such a tag is no reasoning.
    return json.dumps(text).replace("<", "\\u003c").replace("[", "\\u005b")
