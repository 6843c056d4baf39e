"""The questions, in the format of `sft.jsonl`.

{"idx": "11", "context": "…", "query": "…"}      "category" may stand beside them; other fields are not looked at
"""

import asyncio
import re
import string
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import Any

from longreward.benchmarks import single_turn
from longreward.benchmarks.judge_prompts import load_builtin_prompt
from longreward.benchmarks.metrics import mean_estimate
from longreward.benchmarks.types import (
    Answer,
    CaseValue,
    ChatClient,
    IntervalOptions,
    JudgeOptions,
    Metric,
    OnProgress,
    Summary,
    Verdict,
)
from longreward.builtin.offline_judge.lexical import split_sentences
from longreward.chat_model import ChatRequest
from longreward.errors import DataError
from longreward.judge import Judge, ParsedReply
from longreward.retrieval import Bm25Retriever
from longreward.retrieval.chunking import split_text
from longreward.retrieval.retriever import Index
from longreward.utils.concurrency import gather, with_progress
from longreward.utils.jsonl import Row, RowError, read_records
from longreward.utils.token_spans import SimpleTokenizer


@dataclass(frozen=True)
class FactCase:
    """One question about a long context, which is also what its answers' facts are checked against."""

    id: str
    context: str
    query: str
    category: str = "all"

    @property
    def prompt(self) -> str:
        """What the model is asked."""
        return f"{self.context}\n\n{self.query}"


def read_cases(path: Path) -> tuple[FactCase, ...]:
    """All cases in their order; DataError where a row is not as above, or two have one idx."""
    cases = tuple(read_records(path, _case))
    seen: set[str] = set()
    for case in cases:
        if case.id in seen:
            raise DataError(f"{path}: two questions have the idx {case.id!r}")
        seen.add(case.id)
    return cases


def _case(row: Row) -> FactCase:
    for key in ("context", "query"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise RowError(f"{key} is {str(row.get(key))[:80]!r}, expected a text")
    if not isinstance(row.get("idx"), str | int):
        raise RowError(f"idx is {row.get('idx')!r}, expected a name or a number")
    return FactCase(str(row["idx"]), row["context"], row["query"], str(row.get("category") or "all"))


# Where a fact is looked up: the passages of one case's context that share most with it.


class Knowledge:
    """One context in passages of up to `size` tokens, of which `k` are shown, in their order; indexed at first use."""

    def __init__(self, context: str, *, size: int, k: int) -> None:
        self._context, self._size, self._k = context, size, k
        self._passages: list[str] = []
        self._index: Index | None = None
        self._turn = asyncio.Lock()

    async def about(self, facts: list[str]) -> list[str]:
        """For each fact its passages, numbered and with a blank line between."""
        async with self._turn:  # several sentences ask at once, and the first indexes
            if self._index is None:
                self._index = await asyncio.to_thread(self._indexed)
        places = await self._index.search(facts, self._k)
        return ["\n\n".join(self._passage(n, place) for n, place in enumerate(each, start=1)) for each in places]

    def _passage(self, number: int, place: int) -> str:
        return f"Passage {number}:\n{self._passages[place].strip()}"

    def _indexed(self) -> Index:
        cut = split_text(self._context, self._size, SimpleTokenizer())
        self._passages = [self._context[each.start : each.end] for each in cut]
        return Bm25Retriever().index(self._passages)


# What the judge says of a sentence's facts, and of one fact.
#
# "- Mara Voss was born in Kelden.\n- Mara Voss was born in 1871."      two facts; "No fact." is none
# "True"                                                                supported


def read_facts(text: str) -> tuple[str, ...] | None:
    """The facts listed, each once; empty where the judge says that there is none; None where it lists nothing.

    >>> read_facts("- Keld is a village.\\n- Keld lies on the Tarn.\\n- Keld is a village.")
    ('Keld is a village.', 'Keld lies on the Tarn.')
    """
    found = tuple(dict.fromkeys(fact.strip() for fact in _LISTED.findall(text) if _WORD.search(fact)))
    if found:
        return () if len(found) == 1 and _NONE.match(found[0]) else found
    return () if _NONE.match(text.strip()) else None


def published(text: str) -> float:
    """1 or 0 as FactScore's code takes an answer: of true and false the one that comes first loses, and where neither
    is said the fact is supported unless one of four words is.

    >>> published("True."), published("It is not true, it is false."), published("The context agrees.")
    (1.0, 0.0, 1.0)
    >>> published("False? No, it is true.")
    1.0
    """
    said = text.lower()
    true, false = said.find("true"), said.find("false")
    if true >= 0 or false >= 0:
        return float(true > false)
    words = said.translate(str.maketrans("", "", string.punctuation)).split()
    return float(not any(word in words for word in ("not", "cannot", "unknown", "information")))


def as_asked(text: str) -> float | None:
    """1 or 0 where the answer is the word asked for, with nothing said before it; None for any other.

    >>> as_asked("**False**: it was built in 1901."), as_asked("I think it is true.")
    (0.0, None)
    """
    match = _VERDICT.match(text)
    return None if match is None else float(match.group(1).lower() == "true")


_LISTED = re.compile(r"^[^\S\n]*(?:[-*•–]|\d{1,3}[.)])[^\S\n]+(\S[^\n]*)$", re.MULTILINE)
_NONE = re.compile(r"no facts?\b|none\b|没有", re.IGNORECASE)
_WORD = re.compile(r"\w")
_VERDICT = re.compile(r"[^\w]{0,20}(true|false)\b", re.IGNORECASE)


# FactScore's figures: the mean over answers of the share of their facts that is supported, and facts an answer.


SCALE = 100.0
BOUNDS = (0.0, SCALE)


def summarize(
    name: str,
    cases: Mapping[str, FactCase],
    answers: Sequence[Answer],
    verdicts: Sequence[Verdict],
    intervals: IntervalOptions,
) -> Summary:
    """An answer without a fact counts in `respond_ratio` alone, as published."""
    facts: dict[str, list[Verdict]] = {answer.case_id: [] for answer in answers}
    for verdict in verdicts:
        if verdict.more["fact"] is not None:
            facts[verdict.case_id].append(verdict)
    exact = {case: _share([each.exact for each in given]) for case, given in facts.items()}
    strict = {case: _share([each.strict for each in given]) for case, given in facts.items()}
    unscored = sum(verdict.strict is None for verdict in verdicts)
    counts = mean_estimate([(case, float(len(given))) for case, given in facts.items() if given], intervals)
    responding = mean_estimate([(case, SCALE * bool(given)) for case, given in facts.items()], intervals, bounds=BOUNDS)
    with_facts = sum(bool(given) for given in facts.values())
    return Summary(
        name,
        (
            Metric(
                "score",
                mean_estimate(
                    [(case, share) for case, share in exact.items() if share is not None], intervals, bounds=BOUNDS
                ),
                mean_estimate(
                    [(case, share) for case, share in strict.items() if share is not None], intervals, bounds=BOUNDS
                ),
                cases=with_facts,
                unscored=unscored,
            ),
            Metric("facts", counts, counts, cases=with_facts, unscored=0),
            Metric("respond_ratio", responding, responding, cases=len(answers), unscored=0),
        ),
        tuple(
            CaseValue(answer.case_id, cases[answer.case_id].category, answer.prompt_tokens[0], share)
            for answer in answers
            if (share := strict[answer.case_id]) is not None
        ),
        tuple(verdict.strict for verdict in verdicts if verdict.strict is not None),
    )


def _share(supported: Sequence[float | None]) -> float | None:
    """The percentage of those that were read; None where none was."""
    known = [each for each in supported if each is not None]
    return SCALE * sum(known) / len(known) if known else None


# FactScore (Min et al., 2023) with the long context as its source of knowledge, as LongReward's paper measures.
#
#     answer --sentence by sentence--> atomic facts --each with the passages that come nearest--> supported or not
#
# The judge lists a sentence's facts, and says of each, seeing passages of the context, whether it is true. FactScore's
# own prompts stand in its code and its data, which are not fetched: the prompts here are ours.


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
    judging = JudgeOptions(temperature=0.0, retry_temperature=0.7, attempts=3)

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

    async def answer(self, speaker: ChatClient, cases: Sequence[FactCase], *, tell: OnProgress) -> list[Answer]:
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
        self, judge: Judge, items: Sequence[tuple[FactCase, Answer]], *, tell: OnProgress
    ) -> list[tuple[Verdict, ...]]:
        """A verdict for each fact of each answer, and one for each sentence whose facts could not be had."""

        async def one(case: FactCase, answer: Answer) -> tuple[Verdict, ...]:
            return await self._of_answer(judge, case, answer.turns[0])

        return await gather(starmap(with_progress(one, tell), items))

    def summarise(self, answers: Sequence[Answer], verdicts: Sequence[Verdict], intervals: IntervalOptions) -> Summary:
        """`score`, the percentage supported, over answers with facts; `facts` an answer; `respond_ratio`, the
        percentage of answers with facts."""
        return summarize(self.name, self._by_id, answers, verdicts, intervals)

    def write(self, folder: Path, answers: Sequence[Answer], verdicts: Sequence[Verdict], *, model: str) -> None:
        """FactScore has no files of its own that others read."""

    async def _of_answer(self, judge: Judge, case: FactCase, answer: str) -> tuple[Verdict, ...]:
        knowledge = Knowledge(case.context, size=self._passage_tokens, k=self._passages)
        texts = [sentence.text for sentence in split_sentences(answer)]
        parts = [Part(case, n, " ".join(texts[max(0, n - BEFORE) : n]), text) for n, text in enumerate(texts)]
        found = await gather(self._of_sentence(judge, knowledge, part) for part in parts)
        return tuple(verdict for verdicts in found for verdict in verdicts)

    async def _of_sentence(self, judge: Judge, knowledge: Knowledge, part: "Part") -> list[Verdict]:
        slots = {"question": part.case.query, "before": part.before, "sentence": part.text}
        question = self._facts.request(slots, system="", max_tokens=FACTS_TOKENS)
        reading = await judge.query(question, read_facts)
        if reading.value is None:
            return [_verdict(part, f"sentence {part.number + 1}", question, reading, exact=None, strict=None)]
        shown = await knowledge.about(list(reading.value))
        checks = zip(reading.value, shown, strict=True)
        return await gather(self._of_fact(judge, part, n, *each) for n, each in enumerate(checks, start=1))

    async def _of_fact(self, judge: Judge, part: "Part", number: int, fact: str, passages: str) -> Verdict:
        slots = {"question": part.case.query, "context": passages, "fact": fact}
        question = self._check.request(slots, system="", max_tokens=CHECK_TOKENS)
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
