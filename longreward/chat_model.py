"""An answer together with how probable its tokens were, in one text, so that the ledger needs no column for it.

    with_logprobs("m", {"content": [{"token": "m", "top_logprobs": [{"token": "m", "logprob": -0.02}, …]}]})
    {"text": "m", "top_logprobs": [{"m": -0.02, "M": -4.05}]}

Only a question with `top_logprobs` is answered so. Where the server gives no probabilities the text stays as it is.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class TextWithLogprobs:
    """What was said, and for each token of it the logarithms of the probabilities of the likeliest there."""

    text: str
    tokens: tuple[Mapping[str, float], ...]  # empty: the server gave none


def with_logprobs(text: str, given: Any) -> str:
    """The answer's text with the `logprobs` of its choice; the bare text where they hold none."""
    tokens = [_top(token) for token in given.get("content") or []] if isinstance(given, dict) else []
    if not any(tokens):
        return text
    listed = ", ".join("{" + ", ".join(f"{_quoted(t)}: {p!r}" for t, p in top.items()) + "}" for top in tokens)
    return f'{{"text": {_quoted(text)}, "top_logprobs": [{listed}]}}'


def parse_logprobs(text: str) -> TextWithLogprobs:
    """What `with_logprobs` put together; any other text is one without probabilities."""
    try:
        row = json.loads(text)
        tokens = tuple({str(t): float(p) for t, p in top.items()} for top in row["top_logprobs"])
        return TextWithLogprobs(str(row["text"]), tokens)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return TextWithLogprobs(text, ())


def _top(token: Any) -> dict[str, float]:
    """Of tokens that are named twice, as parts of characters are, the likelier counts, which servers name first."""
    found: dict[str, float] = {}
    for each in token.get("top_logprobs") or [] if isinstance(token, dict) else []:
        name, value = each.get("token"), each.get("logprob")
        if isinstance(name, str) and isinstance(value, int | float) and math.isfinite(value):
            found.setdefault(name, float(value))
    return found


def _quoted(text: str) -> str:
    """As JSON, without the signs that open the mark of a thought: a token that is such a mark was no thought."""
    return json.dumps(text).replace("<", "\\u003c").replace("[", "\\u005b")


# What a judge is: something that answers a question in words.
#
# A question carries its template's name and slots besides the rendered text: the HTTP judge sends the text, the offline
# judge answers from the slots. Both speak the same grammar, so all code above runs with either.


@dataclass(frozen=True)
class ChatRequest:
    """One question to a judge, fully rendered."""

    template: str  # "helpfulness", "logicality", "statements", "support", "extraction" or "completeness"
    slots: Mapping[str, str]  # what fills <<question>>, <<answer>>, <<context>>, <<statement>>
    text: str
    prompt_hash: str  # of the template's file, not of the rendered text
    max_tokens: int
    system: str = ""  # a system prompt of its own, behind the judge's
    top_logprobs: int = 0  # of how many tokens the probabilities are wanted, at each place (`logprobs.py`)

    def system_prompt(self, configured: str) -> str:
        """What stands in the system prompt: what the judge's settings put before every question, then its own."""
        return "\n\n".join(part for part in (configured, self.system) if part)


@dataclass(frozen=True)
class TokenUsage:
    """Tokens as the provider counts them; zeros where it does not say."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True)
class ChatReply:
    """What a judge said. An empty text is an answer: it will prove unreadable and be asked again."""

    text: str
    finish_reason: str = "stop"
    usage: TokenUsage = TokenUsage()
    model: str = ""


class ChatModel(Protocol):
    """Anything that answers questions; raises the JudgeError family where it cannot."""

    @property
    def name(self) -> str:
        """Which judge this is, as the ledger's key and every score name it."""

    async def complete(self, request: ChatRequest, *, temperature: float) -> ChatReply:
        """One answer to one question."""

    async def close(self) -> None:
        """Lets go of connections."""


def estimate_tokens(text: str) -> int:
    """About 3.5 bytes a token, which holds for English (1 byte a letter) and Chinese (3 a character) alike."""
    return int(len(text.encode("utf-8", "replace")) / 3.5)
