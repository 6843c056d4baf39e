"""What a judge is: something that answers a question in words.

A question carries its template's name and slots besides the rendered text: the HTTP judge sends the text, the offline
judge answers from the slots. Both speak the same grammar, so all code above runs with either.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Question:
    """One question to a judge, fully rendered."""

    template: str  # "helpfulness", "logicality", "statements", "support", "extraction" or "completeness"
    slots: Mapping[str, str]  # what fills <<question>>, <<answer>>, <<context>>, <<statement>>
    text: str
    prompt_hash: str  # of the template's file, not of the rendered text
    max_tokens: int
    system: str = ""  # a system prompt of its own, behind the judge's
    top_logprobs: int = 0  # of how many tokens the probabilities are wanted, at each place (`logprobs.py`)

    def system_under(self, configured: str) -> str:
        """What stands in the system prompt: what the judge's settings put before every question, then its own."""
        return "\n\n".join(part for part in (configured, self.system) if part)


@dataclass(frozen=True)
class Usage:
    """Tokens as the provider counts them; zeros where it does not say."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True)
class Answer:
    """What a judge said. An empty text is an answer: it will prove unreadable and be asked again."""

    text: str
    finish_reason: str = "stop"
    usage: Usage = Usage()
    model: str = ""


class ChatModel(Protocol):
    """Anything that answers questions; raises the JudgeError family where it cannot."""

    @property
    def name(self) -> str:
        """Which judge this is, as the ledger's key and every score name it."""

    async def answer(self, question: Question, *, temperature: float) -> Answer:
        """One answer to one question."""

    async def close(self) -> None:
        """Lets go of connections."""


def estimated_tokens(text: str) -> int:
    """About 3.5 bytes a token, which holds for English (1 byte a letter) and Chinese (3 a character) alike."""
    return int(len(text.encode("utf-8", "replace")) / 3.5)
