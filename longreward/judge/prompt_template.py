r"""A benchmark's prompt for its judge: literal texts and slots in turn, filled in one pass.

    prompt = ours("longbench_qa", template="longbench/qa")
    prompt.ask({"question": …, "reference": …, "answer": …}, system="", max_tokens=1024)   # a Question

Published prompts mark their slots each in their own way, ours as `<<slot>>`. What fills a slot can never act as another
one, though the published code lets it. In ours, headings and verdicts that stand in the material get a backslash; in
published ones material stands as it is.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from longreward.chat_model import ChatRequest
from longreward.errors import DataError
from longreward.judge.escaping import PromptEscaper, find_headings


@dataclass(frozen=True)
class JudgePrompt:
    """`pieces` are text, slot, text, …, text; a slot may stand in it more than once."""

    template: str  # the name of its questions: "longbench_chat", "longbench/qa", …
    pieces: tuple[str, ...]
    hash: str  # sha256 of its text
    official: bool
    marks: PromptEscaper | None = None  # escaped in what fills the slots

    @property
    def slots(self) -> tuple[str, ...]:
        """Its slots in the order in which they stand in the text."""
        return self.pieces[1::2]

    def ask(self, slots: Mapping[str, str], *, system: str, max_tokens: int) -> ChatRequest:
        """The question; its `slots` hold the material as it is. KeyError where one is not given."""
        text = "".join(self._shown(slots[piece]) if place % 2 else piece for place, piece in enumerate(self.pieces))
        return ChatRequest(self.template, dict(slots), text, self.hash, max_tokens, system)

    def _shown(self, value: str) -> str:
        return value if self.marks is None else self.marks.escape(value)


def load_builtin_prompt(file: str, *, template: str) -> JudgePrompt:
    """Our own prompt in `prompts/<file>.txt`."""
    text = (FOLDER / f"{file}.txt").read_text(encoding="utf-8")
    pieces = tuple(_SLOT.split(text))
    return JudgePrompt(
        template, pieces, _hash(text), official=False, marks=PromptEscaper(find_headings(pieces[::2]), [])
    )


def parse_positional_prompt(text: str, slots: Sequence[str], *, template: str, source: Path) -> JudgePrompt:
    """A published prompt whose slots are `{}` in the order of `slots`; DataError where it has more or fewer."""
    literal = text.split("{}")
    if len(literal) != len(slots) + 1:
        raise DataError(
            f"{source} has {len(literal) - 1} slots {{}}, expected {len(slots)} ({', '.join(slots)}); fetch the file "
            "anew, or leave it out and our own prompt is used"
        )
    pieces = [piece for pair in zip(literal, [*slots, ""], strict=True) for piece in pair][:-1]
    return JudgePrompt(template, tuple(pieces), _hash(text), official=True)


def parse_marked_prompt(text: str, slots: Mapping[str, str], *, template: str, source: Path) -> JudgePrompt:
    """A published prompt with markers of its own: `slots` says which slot each stands for; DataError for a lost one."""
    lost = [marker for marker in slots if marker not in text]
    if lost:
        raise DataError(f"{source}: its prompt for {template} lacks {', '.join(lost)}; fetch the file anew")
    found = re.split(f"({'|'.join(map(re.escape, slots))})", text)
    pieces = tuple(slots[piece] if place % 2 else piece for place, piece in enumerate(found))
    return JudgePrompt(template, pieces, _hash(text), official=True)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


SYSTEM = "You grade answers: read everything, compare, and be fair to each."
"""Our judge's system prompt, where a published one was not fetched."""
FOLDER = Path(__file__).parents[1] / "benchmarks" / "prompt_files"
_SLOT = re.compile(r"<<(\w+)>>")
