"""The writer's prompts, one text file each: the document first, so that a server's prefix cache serves all questions.

prompts/en/questions.txt       <<document>>, <<count>>, <<task>>: the text of prompts/en/task_<kind>.txt
prompts/en/answer.txt          <<document>>, <<question>>, <<length>>
"""

import hashlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from longreward.judging.chat import Question
from longreward.judging.escaping import Marks, headings_in
from longreward.script import Language
from longreward.synthesis.config import Task
from longreward.synthesis.records import Context

QUESTIONS, ANSWER = "synthesis/questions", "synthesis/answer"
"""The names of their templates."""


def ask_for_questions(context: Context, task: Task, count: int) -> Question:
    """So many questions of one kind on one context."""
    kind = _read(context.language, f"task_{task}")
    slots = {"document": context.text, "count": str(count), "task": kind.strip()}
    return _ask(QUESTIONS, "questions", context.language, slots, more={"kind": task}, hashed=kind)


def ask_for_answer(context: Context, query: str, words: int) -> Question:
    """The answer to one question, of about so many words (in Chinese, characters)."""
    slots = {"document": context.text, "question": query, "length": str(words)}
    return _ask(ANSWER, "answer", context.language, slots, max_tokens=ROOM + TOKENS_A_WORD * words)


def _ask(
    template: str,
    file: str,
    language: Language,
    slots: Mapping[str, str],
    *,
    more: Mapping[str, str] | None = None,
    hashed: str = "",
    max_tokens: int = 2048,
) -> Question:
    """Slots are filled in one pass, so that none can act as another, and headings that stand in them are escaped."""
    text = _read(language, file)
    marks = _marks(language)
    pieces = _SLOT.split(text)
    filled = "".join(marks.escape(slots[piece]) if place % 2 else piece for place, piece in enumerate(pieces))
    prompt_hash = hashlib.sha256((text + hashed).encode()).hexdigest()
    return Question(template, {**slots, **(more or {})}, filled, prompt_hash, max_tokens)


@cache
def _marks(language: Language) -> Marks:
    return Marks(headings_in([_read(language, "questions"), _read(language, "answer")]), [])


@cache
def _read(language: Language, file: str) -> str:
    return (PROMPTS / language / f"{file}.txt").read_text(encoding="utf-8")


PROMPTS = Path(__file__).parent / "prompts"
ROOM, TOKENS_A_WORD = 256, 4  # a writer cut off has written nothing: the limit is generous
_SLOT = re.compile(r"<<(\w+)>>")
