"""Drafts of a context: one request for the questions of each kind, then one for the answer to each question."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from longreward.builtin.offline_judge.lexical import parse_sentence
from longreward.judge import Judge
from longreward.judge.truncation import truncated_tags
from longreward.synthesis.config import SynthesizeConfig, Task
from longreward.synthesis.prompts import answer_request, parse_answer, parse_questions, questions_request
from longreward.synthesis.records import Context, Draft, Dropped, Outcome
from longreward.utils.concurrency import gather
from longreward.utils.language import detect_language

MAX_WORDS_WITHOUT_LANGUAGE = 3  # a shorter answer may be a name or a number
WORD = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]|[^\W\u3400-\u4dbf\u4e00-\u9fff]+")


@dataclass(frozen=True)
class _Question:
    task: Task
    text: str
    prompt_hash: str


async def write_drafts(writer: Judge, context: Context, config: SynthesizeConfig) -> list[Outcome]:
    """Return drafts in the order of kinds and questions, and what was dropped on the way.

    Raises a JudgeError if the writer fails.
    """
    requests = (_write_questions(writer, context, task, count) for task, count in config.requested.items())
    replies = [outcome for outcomes in await gather(requests) for outcome in outcomes]
    # Filtered in a fixed order, so that the same one of two duplicates is kept in every run.
    accepted: list[str] = []
    questions = [_filter_question(context, reply, accepted, config.max_similarity) for reply in replies]
    return await gather(_write_answer(writer, context, question, config) for question in questions)


def find_duplicate(question: str, accepted: Iterable[str], *, max_similarity: float) -> str | None:
    """Return the first of the accepted questions with which `question` shares too many word stems."""
    stems = _content_stems(question)
    for other in accepted:
        # Jaccard similarity; equal sets are duplicates even at a limit of 1.
        other_stems = _content_stems(other)
        if stems == other_stems or len(stems & other_stems) > max_similarity * len(stems | other_stems):
            return other
    return None


def count_words(text: str) -> int:
    """Return the number of words, counting each Chinese character as one."""
    return len(WORD.findall(text))


async def _write_questions(writer: Judge, context: Context, task: Task, count: int) -> list[_Question | Dropped]:
    request = questions_request(context, task, count)
    reply = await writer.query(request, parse_questions, parse_truncated=truncated_tags(parse_questions))
    if not reply.value:
        reason = reply.reason or "the writer found no question of this kind"
        return [context.drop("no_question", reason, task=task)]
    return [_Question(task, text, request.prompt_hash) for text in reply.value[:count]]


def _filter_question(
    context: Context, question: _Question | Dropped, accepted: list[str], max_similarity: float
) -> _Question | Dropped:
    """Drop a question in another language or a duplicate of an accepted one, otherwise accept it."""
    if isinstance(question, Dropped):
        return question
    if not WORD.search(question.text) or detect_language(question.text) != context.language:
        reason = f"the question is not in the language of the document ({context.language})"
        return context.drop("language", reason, task=question.task, query=question.text)
    if (duplicate := find_duplicate(question.text, accepted, max_similarity=max_similarity)) is not None:
        reason = f"too similar to {duplicate!r}"
        return context.drop("duplicate_question", reason, task=question.task, query=question.text)
    accepted.append(question.text)
    return question


async def _write_answer(
    writer: Judge, context: Context, question: _Question | Dropped, config: SynthesizeConfig
) -> Outcome:
    if isinstance(question, Dropped):
        return question
    task, query, target_words = question.task, question.text, config.answer_words[question.task]
    request = answer_request(context, query, target_words)
    reply = await writer.query(request, parse_answer, parse_truncated=truncated_tags(parse_answer))
    if reply.value is None:  # unreadable after all attempts
        return context.drop("no_answer", reply.reason or "", task=task, query=query)
    answer = reply.value
    if not answer:
        return context.drop("unanswerable", "the writer found no answer in the document", task=task, query=query)
    words = count_words(answer)
    if detect_language(answer) != context.language and words > MAX_WORDS_WITHOUT_LANGUAGE:
        reason = f"the answer is not in the language of the document ({context.language})"
        return context.drop("language", reason, task=task, query=query, answer=answer)
    if words > 2 * target_words:
        reason = f"the answer has {words:,} words; synthesize.answer_words.{task} is {target_words:,}"
        return context.drop("long_answer", reason, task=task, query=query, answer=answer)
    return Draft(context, task, query, answer, reply.judge, (question.prompt_hash, request.prompt_hash))


def _content_stems(question: str) -> frozenset[str]:
    """Return the stems of all words except function words; of a question without others, the whole text."""
    return parse_sentence(question).terms or frozenset({question.casefold()})
