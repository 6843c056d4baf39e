"""Prompts of the writer and parsers of its replies.

Each prompt is a text file. The document comes first, so that a server's prefix cache serves all questions on it:

    prompt_files/en/questions.txt   <<document>>, <<count>>, <<task>> (the text of prompt_files/en/task_<kind>.txt)
    prompt_files/en/answer.txt      <<document>>, <<question>>, <<length>>

A parser returns None for an unreadable reply; the writer is then queried again.
"""

import hashlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from longreward.chat_model import ChatRequest, ReplyFormat
from longreward.judge.escaping import PromptEscaper, find_headings
from longreward.judge.reply_text import find_tagged, has_tag
from longreward.synthesis.config import Task
from longreward.synthesis.records import Context
from longreward.utils.language import Language

QUESTIONS_TEMPLATE, ANSWER_TEMPLATE = "synthesis/questions", "synthesis/answer"
PROMPT_DIR = Path(__file__).parent / "prompt_files"
QUESTIONS_MAX_TOKENS = 2048
# The limit for answers is generous, because a truncated reply cannot be used.
ANSWER_BASE_TOKENS, ANSWER_TOKENS_PER_WORD = 256, 4
QUESTIONS_REMINDERS: Mapping[Language, str] = {
    "en": "Your reply is not in the required form. Write the questions again, each between <question> and </question>, "
    "and nothing else.",
    "zh": "你的回复不符合要求的格式。请重新写出这些问题，每个放在<question>和</question>之间，不写其他内容。",
}
ANSWER_REMINDERS: Mapping[Language, str] = {
    "en": "Your reply is not in the required form. Write the answer again between <answer> and </answer>.",
    "zh": "你的回复不符合要求的格式。请把答案重新写在<answer>和</answer>之间。",
}
SLOT = re.compile(r"<<(\w+)>>")


def questions_request(context: Context, task: Task, count: int) -> ChatRequest:
    """Return the request for `count` questions of one kind on a context."""
    # The hash covers the task text too, because it is part of the template.
    task_text = _read(context.language, f"task_{task}")
    slots = {"document": context.text, "count": str(count), "task": task_text.strip()}
    text, template = _fill("questions", context.language, slots)
    return ChatRequest(
        QUESTIONS_TEMPLATE,
        {**slots, "kind": task},
        text,
        _hash(template + task_text),
        QUESTIONS_MAX_TOKENS,
        reply_format=ReplyFormat(reminder=QUESTIONS_REMINDERS[context.language]),
    )


def answer_request(context: Context, query: str, words: int) -> ChatRequest:
    """Return the request for an answer of about `words` words (in Chinese, characters)."""
    slots = {"document": context.text, "question": query, "length": str(words)}
    text, template = _fill("answer", context.language, slots)
    max_tokens = ANSWER_BASE_TOKENS + ANSWER_TOKENS_PER_WORD * words
    reply_format = ReplyFormat(reminder=ANSWER_REMINDERS[context.language])
    return ChatRequest(ANSWER_TEMPLATE, slots, text, _hash(template), max_tokens, reply_format=reply_format)


def _fill(file: str, language: Language, slots: Mapping[str, str]) -> tuple[str, str]:
    """Return the filled prompt and its template.

    All slots are filled in one pass, so that a value cannot contain a slot. Headings inside values are escaped.
    """
    template = _read(language, file)
    escaper = _escaper(language)
    # The split alternates between literal text and slot names.
    pieces = SLOT.split(template)
    return "".join(escaper.escape(slots[piece]) if i % 2 else piece for i, piece in enumerate(pieces)), template


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _escaper(language: Language) -> PromptEscaper:
    return PromptEscaper(find_headings([_read(language, "questions"), _read(language, "answer")]), [])


@cache
def _read(language: Language, file: str) -> str:
    return (PROMPT_DIR / language / f"{file}.txt").read_text(encoding="utf-8")


def parse_questions(text: str) -> tuple[str, ...] | None:
    """Return the questions between tags, each on one line; an empty tuple for `<no_question/>`.

    >>> parse_questions("<question>Who signed?</question> <question>When\\nwas that?</question>")
    ('Who signed?', 'When was that?')
    """
    tagged = find_tagged(text, "question")
    questions = tuple(" ".join(question.split()) for question in tagged.texts if question)
    if not tagged.closed:
        return None
    return questions or (() if has_tag(text, "no_question") else None)


def parse_answer(text: str) -> str | None:
    """Return the answer between tags, or "" if the document does not contain it.

    A truncated reply lacks the closing tag and is unreadable.

    >>> parse_answer("<answer>Ann Lee signed it.</answer>")
    'Ann Lee signed it.'
    """
    answer = next((answer for answer in find_tagged(text, "answer").texts if answer), None)
    if answer is None and has_tag(text, "unanswerable"):
        return ""
    return answer
