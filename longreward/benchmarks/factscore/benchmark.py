"""FactScore (Min et al., 2023) with the long context as its source of knowledge, as LongReward's paper measures.

    answer --sentence by sentence--> atomic facts --each with the passages that come nearest--> supported or not

The judge lists a sentence's facts, and says of each, seeing passages of the context, whether it is true. FactScore's
own prompts stand in its code and its data, which are not fetched: the prompts here are ours.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import Any

from longreward.benchmarks import single_turn
from longreward.benchmarks.factscore import summary
from longreward.benchmarks.factscore.cases import FactCase, read_cases
from longreward.benchmarks.factscore.knowledge import Knowledge
from longreward.benchmarks.factscore.parsers import as_asked, published, read_facts
from longreward.benchmarks.types import Answer, ChatClient, Intervals, Judging, Summary, Tell, Verdict
from longreward.builtin.offline_judge.lexical import sentences
from longreward.chat_model import ChatRequest
from longreward.judge import Judge, ParsedReply
from longreward.judge.prompt_template import load_builtin_prompt
from longreward.utils.concurrency import gather, with_progress

BUILTIN = Path(__file__).parents[2] / "builtin" / "benchmarks" / "factscore"
MAX_NEW_TOKENS, MAX_PROMPT_TOKENS = 1024, 64_000
FACTS_TOKENS, CHECK_TOKENS = 512, 16
PASSAGE_TOKENS, PASSAGES = 256, 5  # FactScore's
BEFORE = 2
"""Sentences shown before the one whose facts are listed, so that its pronouns can be resolved."""


class FactScore:
    """FactScore over the questions of a file; the built-in ones where none is given."""

    name = "factscore"
    top = 100.0
    judging = Judging(temperature=0.0, retry_temperature=0.7, attempts=3)

    official = False  # its prompts are ours

    def __init__(
        self,
        *,
        cases: Path = BUILTIN / "cases.jsonl",
        passage_tokens: int = PASSAGE_TOKENS,
        passages: int = PASSAGES,
        temperature: float = 1.0,
        seed: int = 42,
        max_new_tokens: int | None = None,
    ) -> None:
        """`cases` is a file as `sft.jsonl` (`idx`, `context`, `query`); each fact is held against `passages` passages
        of up to `passage_tokens` tokens. Answers are asked for as LongBench-Chat's are."""
        self.cases = read_cases(cases)
        self._passage_tokens, self._passages = passage_tokens, passages
        self._facts = load_builtin_prompt("factscore_facts", template="factscore/facts")
        self._check = load_builtin_prompt("factscore_check", template="factscore/check")
        self._temperature, self._seed, self._max_new_tokens = temperature, seed, max_new_tokens
        self._by_id = {case.id: case for case in self.cases}

    async def answer(self, speaker: ChatClient, cases: Sequence[FactCase], *, tell: Tell) -> list[Answer]:
        """Each answer as the model gave it."""
        asks = [
            single_turn.ask(
                f"{self.name}/{case.id}",
                case.prompt,
                temperature=self._temperature,
                max_new_tokens=single_turn.at_most(MAX_NEW_TOKENS, self._max_new_tokens),
                max_prompt_tokens=MAX_PROMPT_TOKENS,
                seed=self._seed,
            )
            for case in cases
        ]
        return await single_turn.answers(speaker, [case.id for case in cases], asks, tell)

    async def judge(
        self, judge: Judge, items: Sequence[tuple[FactCase, Answer]], *, tell: Tell
    ) -> list[tuple[Verdict, ...]]:
        """A verdict for each fact of each answer, and one for each sentence whose facts could not be had."""

        async def one(case: FactCase, answer: Answer) -> tuple[Verdict, ...]:
            return await self._of_answer(judge, case, answer.turns[0])

        return await gather(starmap(with_progress(one, tell), items))

    def summarise(self, answers: Sequence[Answer], verdicts: Sequence[Verdict], intervals: Intervals) -> Summary:
        """`score`, the percentage supported, over answers with facts; `facts` an answer; `respond_ratio`, the
        percentage of answers with facts."""
        return summary.summarise(self.name, self._by_id, answers, verdicts, intervals)

    def write(self, folder: Path, answers: Sequence[Answer], verdicts: Sequence[Verdict], *, model: str) -> None:
        """FactScore has no files of its own that others read."""

    async def _of_answer(self, judge: Judge, case: FactCase, answer: str) -> tuple[Verdict, ...]:
        knowledge = Knowledge(case.context, size=self._passage_tokens, k=self._passages)
        texts = [sentence.text for sentence in sentences(answer)]
        parts = [Part(case, n, " ".join(texts[max(0, n - BEFORE) : n]), text) for n, text in enumerate(texts)]
        found = await gather(self._of_sentence(judge, knowledge, part) for part in parts)
        return tuple(verdict for verdicts in found for verdict in verdicts)

    async def _of_sentence(self, judge: Judge, knowledge: Knowledge, part: "Part") -> list[Verdict]:
        slots = {"question": part.case.query, "before": part.before, "sentence": part.text}
        question = self._facts.ask(slots, system="", max_tokens=FACTS_TOKENS)
        reading = await judge.query(question, read_facts)
        if reading.value is None:
            return [_verdict(part, f"sentence {part.number + 1}", question, reading, exact=None, strict=None)]
        shown = await knowledge.about(list(reading.value))
        checks = zip(reading.value, shown, strict=True)
        return await gather(self._of_fact(judge, part, n, *each) for n, each in enumerate(checks, start=1))

    async def _of_fact(self, judge: Judge, part: "Part", number: int, fact: str, passages: str) -> Verdict:
        slots = {"question": part.case.query, "context": passages, "fact": fact}
        question = self._check.ask(slots, system="", max_tokens=CHECK_TOKENS)
        reading = await judge.query(question, lambda text: text or None)  # asked once, as published: any words are one
        exact = None if reading.value is None else published(reading.text)
        strict = None if reading.value is None else as_asked(reading.text)
        name = f"sentence {part.number + 1}, fact {number}"
        return _verdict(part, name, question, reading, exact=exact, strict=strict, fact=fact)


@dataclass(frozen=True)
class Part:
    """One sentence of an answer, from 0, with those before it."""

    case: FactCase
    number: int
    before: str
    text: str


def _verdict(
    part: Part,
    name: str,
    question: ChatRequest,
    reading: ParsedReply[Any],
    *,
    exact: float | None,
    strict: float | None,
    fact: str | None = None,
) -> Verdict:
    return Verdict(
        part.case.id,
        name,
        question.template,
        question.system,
        question.text,
        reading.text,
        exact=exact,
        strict=strict,
        reason=None if strict is not None else reading.reason or "it begins with neither True nor False",
        judge=reading.judge,
        created=time.time(),
        more={"sentence": part.text, "fact": fact, "official": False},
    )
