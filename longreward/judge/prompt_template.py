"""A prompt template: literal text and slots in alternation, filled in one pass.

    prompt = read_prompt(Path("prompts/longbench_qa.txt"), name="longbench/qa")
    prompt.request({"question": …, "reference": …, "answer": …}, max_tokens=1024)   # a ChatRequest

Our prompts mark slots as `<<slot>>`, published prompts each in their own way. The text of a slot is never searched for
slots, unlike in the published code, where a document that holds `<<answer>>` is rewritten. In our prompts, headings and
verdicts in the material are escaped; published prompts get the material unchanged.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from longreward.chat_model import ANY_FORMAT, ChatRequest, ReplyFormat
from longreward.judge.escaping import LabelledText, PromptEscaper, find_headings

SLOT = re.compile(r"<<(\w+)>>")


@dataclass(frozen=True)
class PromptTemplate:
    """`pieces` are text, slot, text, …, text; a slot may occur more than once."""

    name: str
    """Name of the template in requests: "helpfulness", "longbench_chat", "longbench/qa", …"""
    pieces: tuple[str, ...]
    hash: str
    """SHA-256 of the template's text."""
    official: bool = False
    """Whether this is a published prompt."""
    escaper: PromptEscaper | None = None
    max_tokens: int = 512
    reply_format: ReplyFormat = ANY_FORMAT

    @property
    def slots(self) -> tuple[str, ...]:
        """Slot names in text order."""
        return self.pieces[1::2]

    @property
    def text(self) -> str:
        """The template with its slots as `<<slot>>`."""
        return "".join(f"<<{piece}>>" if index % 2 else piece for index, piece in enumerate(self.pieces))

    def request(self, slots: Mapping[str, str], *, system: str = "", max_tokens: int | None = None) -> ChatRequest:
        """Return the request with all slots filled.

        The text has the escaped material, the `slots` of the request have the original. KeyError for a missing slot.
        """
        text = "".join(self._escape(slots[piece]) if index % 2 else piece for index, piece in enumerate(self.pieces))
        limit = self.max_tokens if max_tokens is None else max_tokens
        return ChatRequest(
            self.name, dict(slots), text, self.hash, limit, system=system, reply_format=self.reply_format
        )

    def _escape(self, value: str) -> str:
        if isinstance(value, LabelledText):
            return value.escaped
        return value if self.escaper is None else self.escaper.escape(value)


def read_prompt(path: Path, *, name: str) -> PromptTemplate:
    """Read a prompt with `<<slot>>` markers that escapes its own headings in the material."""
    text = path.read_text(encoding="utf-8")
    pieces = tuple(SLOT.split(text))
    return PromptTemplate(name, pieces, text_hash(text), escaper=PromptEscaper(find_headings(pieces[::2]), []))


def text_hash(text: str) -> str:
    """Return the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()
