"""The writer's prompts, one text file each: the document first, so that a server's prefix cache serves all questions.

prompts/en/questions.txt       <<document>>, <<count>>, <<task>>: the text of prompts/en/task_<kind>.txt
prompts/en/answer.txt          <<document>>, <<question>>, <<length>>
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from longreward.chat_model import ChatRequest
from longreward.judge.escaping import PromptEscaper, find_headings
from longreward.judge.reply_text import find_tagged, has_tag
from longreward.synthesis.config import Task
from longreward.synthesis.records import Context
from longreward.utils.language import Language

QUESTIONS, ANSWER = "synthesis/questions", "synthesis/answer"
"""The names of their templates."""


def questions_request(context: Context, task: Task, count: int) -> ChatRequest:
    """So many questions of one kind on one context."""
    kind = _read(context.language, f"task_{task}")
    slots = {"document": context.text, "count": str(count), "task": kind.strip()}
    return _ask(QUESTIONS, "questions", context.language, slots, more={"kind": task}, hashed=kind)


def answer_request(context: Context, query: str, words: int) -> ChatRequest:
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
) -> ChatRequest:
    """Slots are filled in one pass, so that none can act as another, and headings that stand in them are escaped."""
    text = _read(language, file)
    marks = _marks(language)
    pieces = _SLOT.split(text)
    filled = "".join(marks.escape(slots[piece]) if place % 2 else piece for place, piece in enumerate(pieces))
    prompt_hash = hashlib.sha256((text + hashed).encode()).hexdigest()
    return ChatRequest(template, {**slots, **(more or {})}, filled, prompt_hash, max_tokens)


@cache
def _marks(language: Language) -> PromptEscaper:
    return PromptEscaper(find_headings([_read(language, "questions"), _read(language, "answer")]), [])


@cache
def _read(language: Language, file: str) -> str:
    return (PROMPTS / language / f"{file}.txt").read_text(encoding="utf-8")


PROMPTS = Path(__file__).parent / "prompt_files"
ROOM, TOKENS_A_WORD = 256, 4  # a writer cut off has written nothing: the limit is generous
_SLOT = re.compile(r"<<(\w+)>>")


# Parse what the writer wrote. A parser returns None where it cannot, and the writer is asked again.


def parse_questions(text: str) -> tuple[str, ...] | None:
    """What stands between tags, on one line each; an empty tuple where there is `<no_question/>` in its place.

    >>> parse_questions("<question>Who signed?</question> <question>When\\nwas that?</question>")
    ('Who signed?', 'When was that?')
    """
    tagged = find_tagged(text, "question")
    questions = tuple(" ".join(question.split()) for question in tagged.texts if question)
    if not tagged.closed:
        return None
    return questions or (() if has_tag(text, "no_question") else None)


@dataclass(frozen=True)
class ParsedAnswer:
    """An answer; None: the document does not hold it."""

    text: str | None


def parse_answer(text: str) -> ParsedAnswer | None:
    """What stands between the tags; one that was cut off has no closing tag and is none.

    >>> parse_answer("<answer>Ann Lee signed it.</answer>")
    ParsedAnswer(text='Ann Lee signed it.')
    """
    answer = next((answer for answer in find_tagged(text, "answer").texts if answer), None)
    if answer is not None:
        return ParsedAnswer(answer)
    return ParsedAnswer(None) if has_tag(text, "unanswerable") else None
