"""From a context to drafts: one call for the questions of each kind, then one for the answer to each question."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from longreward.builtin.offline_judge.lexical import parse_sentence
from longreward.judge import Judge
from longreward.judge.truncation import truncated_tags
from longreward.synthesis.config import SynthesizeConfig, Task
from longreward.synthesis.prompts import answer_request, parse_answer, parse_questions, questions_request
from longreward.synthesis.records import Context, Draft, Dropped, Outcome
from longreward.utils.concurrency import gather
from longreward.utils.language import detect_language


class DuplicateFilter:
    """Questions so far; two are alike where they share more than `limit` of all their words, told by their stems."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._terms: dict[str, frozenset[str]] = {}

    def like(self, question: str) -> str | None:
        """The first question that this one repeats."""
        terms = _terms(question)
        for other, known in self._terms.items():
            if terms == known or len(terms & known) > self._limit * len(terms | known):
                return other
        return None

    def add(self, question: str) -> None:
        """From now on this one counts."""
        self._terms[question] = _terms(question)


class _Query(NamedTuple):
    task: Task
    text: str
    prompt_hash: str


async def write_drafts(writer: Judge, context: Context, config: SynthesizeConfig) -> list[Outcome]:
    """Drafts in the order of kinds and questions, and what was dropped on the way.

    Raises the JudgeError family where the writer fails.
    """
    asked = DuplicateFilter(config.max_similarity)
    asking = (_questions(writer, context, task, count) for task, count in config.asked.items())
    found = [one for several in await gather(asking) for one in several]
    queries = [
        _why_not(context, one, asked) or one if isinstance(one, _Query) else one for one in found
    ]  # in their order, so that the same one of two alike is kept each time
    return await gather(_answered(writer, context, one, config.answer_words) for one in queries)


async def _questions(writer: Judge, context: Context, task: Task, count: int) -> list[_Query | Dropped]:
    """Those of one kind, at most `count`; one drop where there is none."""
    question = questions_request(context, task, count)
    reading = await writer.query(question, parse_questions, parse_truncated=truncated_tags(parse_questions))
    if not reading.value:
        reason = reading.reason or "the writer found nothing of this kind to ask"
        return [Dropped(context.document, "no_question", reason, part=context.part, task=task)]
    return [_Query(task, text, question.prompt_hash) for text in reading.value[:count]]


def _why_not(context: Context, query: _Query, asked: DuplicateFilter) -> Dropped | None:
    """Why a question is left out before anything is spent on its answer."""
    if not WORD.search(query.text) or detect_language(query.text) != context.language:
        reason = f"the question is not in the language of the document ({context.language})"
        return Dropped(context.document, "language", reason, part=context.part, task=query.task, query=query.text)
    if (like := asked.like(query.text)) is not None:
        reason = f"too much like {like!r}"
        dropped = Dropped(context.document, "duplicate_question", reason, part=context.part, task=query.task)
        return replace(dropped, query=query.text)
    asked.add(query.text)
    return None


async def _answered(writer: Judge, context: Context, query: _Query | Dropped, words: Mapping[Task, int]) -> Outcome:
    if isinstance(query, Dropped):
        return query
    limit = words[query.task]
    question = answer_request(context, query.text, limit)
    reading = await writer.query(question, parse_answer, parse_truncated=truncated_tags(parse_answer))
    dropped = Dropped(
        context.document, "no_answer", reading.reason or "", part=context.part, task=query.task, query=query.text
    )
    if reading.value is None:
        return dropped
    answer = reading.value.text
    if answer is None:
        return dropped.because("unanswerable", "the writer found no answer in the document")
    if detect_language(answer) != context.language and count_words(answer) > BARE:
        reason = f"the answer is not in the language of the document ({context.language})"
        return dropped.because("language", reason, answer)
    if (length := count_words(answer)) > 2 * limit:
        reason = f"the answer has {length:,} words; synthesize.answer_words.{query.task} is {limit:,}"
        return dropped.because("long_answer", reason, answer)
    hashes = (query.prompt_hash, question.prompt_hash)
    return Draft(context, query.task, query.text, answer, reading.judge, hashes)


def count_words(text: str) -> int:
    """In words; in Chinese, characters."""
    return len(WORD.findall(text))


BARE = 3  # words up to which an answer may be a name or a figure, which has no language
WORD = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]|[^\W\u3400-\u4dbf\u4e00-\u9fff]+")


# Which questions on one document ask the same thing in nearly the same words.


def _terms(question: str) -> frozenset[str]:
    """Without little words; where nothing else is in it, the whole."""
    return parse_sentence(question).terms or frozenset({question.casefold()})
