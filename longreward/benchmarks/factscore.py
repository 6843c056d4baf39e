"""FactScore (Min et al., 2023) with the long context as its source of knowledge, as in the LongReward paper.

    answer -> sentences -> atomic facts (judge) -> supported by the most similar passages or not (judge)

An answer's score is the share of its facts that are supported, times a penalty for few facts: exp(1 - gamma / facts).
FactScore's own prompts are part of its code and data, which are not downloaded: the prompts here are ours. Questions
have the format of `sft.jsonl`: {"idx": "11", "context": "…", "query": "…", "category": "optional"}.
"""

import asyncio
import math
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from longreward.benchmarks.judge_prompts import load_builtin_prompt
from longreward.benchmarks.published_formats import parse_text
from longreward.benchmarks.types import (
    TOY_DATA,
    Answer,
    Benchmark,
    CaseScore,
    DocumentCase,
    GenerationRequest,
    JudgeOptions,
    Metric,
    Summary,
    Verdict,
    longreward_request,
    scan_cases,
)
from longreward.builtin.offline_judge.lexical import split_sentences
from longreward.chat_model import ChatRequest
from longreward.errors import DataError
from longreward.evaluation.statistics import IntervalOptions, mean
from longreward.judge import Judge, ParsedReply
from longreward.judge.prompts import Parsing
from longreward.retrieval import Bm25Retriever
from longreward.retrieval.chunking import split_text
from longreward.retrieval.retriever import Index
from longreward.utils.concurrency import gather
from longreward.utils.jsonl import IndexedJsonl, Row, RowError
from longreward.utils.token_spans import SimpleTokenizer

TOY = TOY_DATA / "factscore"
FACTS_TOKENS, CHECK_TOKENS = 512, 16
PASSAGE_TOKENS, PASSAGES = 256, 5  # FactScore's values
PRECEDING_SENTENCES = 2  # shown with the sentence whose facts are listed, to resolve its pronouns
SCALE = 100.0
BOUNDS = (0.0, SCALE)
_LIST_ITEM = re.compile(r"^[^\S\n]*(?:[-*•–]|\d{1,3}[.)])[^\S\n]+(\S[^\n]*)$", re.MULTILINE)
_NO_FACTS = re.compile(r"no facts?\b|none\b|没有", re.IGNORECASE)
_WORD = re.compile(r"\w")
_VERDICT = re.compile(r"[^\w]{0,20}(true|false)\b", re.IGNORECASE)


@dataclass(frozen=True)
class FactScoreCase(DocumentCase):
    """One question about a long context; the context is also the source that facts are checked against."""

    id: str
    query: str
    category: str


class FactScore(Benchmark[FactScoreCase]):
    """FactScore over the questions of a file, or the built-in questions by default."""

    name = "factscore"
    files: ClassVar = {"cases": "cases.jsonl"}
    max_score = 100.0
    judge_options = JudgeOptions(temperature=0.0, retry_temperature=0.7, max_attempts=3)
    official = False  # the prompts are ours

    def __init__(
        self,
        *,
        cases: Path = TOY / "cases.jsonl",
        length_penalty: int = 10,
        abstention: Literal["none", "generic"] = "none",
        max_new_tokens: int | None = None,
        parsing: Parsing = "strict",
    ) -> None:
        """Read the questions.

        Args:
            length_penalty: FactScore's gamma: answers with fewer facts are penalized; 0: no penalty.
            abstention: `generic`: answers that decline to answer have no facts, and the judge is not queried.
        """
        self.cases = read_cases(cases)
        self._length_penalty, self._abstention = length_penalty, abstention
        self._facts_prompt = load_builtin_prompt("factscore_facts", template="factscore/facts")
        self._check_prompt = load_builtin_prompt("factscore_check", template="factscore/check")
        self._max_new_tokens = max_new_tokens
        self._parsing = parsing
        self._cases_by_id = {case.id: case for case in self.cases}

    def request(self, case: FactScoreCase) -> GenerationRequest:
        return longreward_request(
            f"{self.name}/{case.id}", f"{case.context}\n\n{case.query}", max_new_tokens=self._max_new_tokens
        )

    def question_and_document(self, case: FactScoreCase) -> tuple[str, str | None]:
        return case.query, case.context

    async def judge_answer(self, judge: Judge, case: FactScoreCase, answer: Answer) -> list[Verdict]:
        """Return a verdict per fact, and one per sentence whose facts could not be listed."""
        if self._abstention == "generic" and is_abstention(answer.turns[0]):
            return []
        retriever = PassageRetriever(case.context, passage_tokens=PASSAGE_TOKENS, top_k=PASSAGES)
        sentences = [sentence.text for sentence in split_sentences(answer.turns[0])]

        async def judge_sentence(index: int, sentence: str) -> list[Verdict]:
            part = f"sentence {index + 1}"
            preceding = " ".join(sentences[max(0, index - PRECEDING_SENTENCES) : index])
            slots = {"question": case.query, "before": preceding, "sentence": sentence}
            request = self._facts_prompt.request(slots, system="", max_tokens=FACTS_TOKENS)
            reply = await judge.query(request, parse_facts)
            if reply.value is None:
                return [_verdict(case, part, request, reply, value=None, sentence=sentence, fact=None)]
            passages = await retriever.search(list(reply.value))
            facts = enumerate(zip(reply.value, passages, strict=True), start=1)
            return await gather(judge_fact(sentence, f"{part}, fact {number}", *fact) for number, fact in facts)

        async def judge_fact(sentence: str, part: str, fact: str, passages: str) -> Verdict:
            slots = {"question": case.query, "context": passages, "fact": fact}
            request = self._check_prompt.request(slots, system="", max_tokens=CHECK_TOKENS)
            # FactScore's code queries once and takes any text for a verdict.
            reply = await judge.query(request, lambda text: text or None)
            parse = parse_published_verdict if self._parsing == "published" else parse_strict_verdict
            value = None if reply.value is None else parse(reply.text)
            return _verdict(case, part, request, reply, value=value, sentence=sentence, fact=fact)

        by_sentence = await gather(judge_sentence(*item) for item in enumerate(sentences))
        return [verdict for verdicts in by_sentence for verdict in verdicts]

    def summarize(self, answers: Sequence[Answer], verdicts: Sequence[Verdict], options: IntervalOptions) -> Summary:
        """Return `score` (percentage of supported facts, penalized), `init_score` (not penalized), `facts` and
        `respond_ratio`; all but the last are means over the answers that have facts, as in the published code.
        """
        facts: dict[str, list[float | None]] = {answer.case_id: [] for answer in answers}
        for verdict in verdicts:
            if verdict.metadata["fact"] is not None:
                facts[verdict.case_id].append(verdict.value)
        supported = {case_id: value for case_id, group in facts.items() if (value := _percentage(group)) is not None}
        penalties = {case_id: length_penalty(len(facts[case_id]), self._length_penalty) for case_id in supported}
        scores = {case_id: penalties[case_id] * value for case_id, value in supported.items()}
        counts = mean([(case_id, float(len(group))) for case_id, group in facts.items() if group], options)
        responses = [(case_id, SCALE * bool(group)) for case_id, group in facts.items()]
        respond_ratio = mean(responses, options, bounds=BOUNDS)
        with_facts = sum(bool(group) for group in facts.values())

        unscored = sum(verdict.value is None for verdict in verdicts)
        return Summary(
            self.name,
            (
                Metric("score", mean([*scores.items()], options, bounds=BOUNDS), cases=with_facts, unscored=unscored),
                Metric("init_score", mean([*supported.items()], options, bounds=BOUNDS), cases=with_facts, unscored=0),
                Metric("facts", counts, cases=with_facts, unscored=0),
                Metric("respond_ratio", respond_ratio, cases=len(answers), unscored=0),
            ),
            tuple(
                CaseScore(answer.case_id, self._cases_by_id[answer.case_id].category, answer.prompt_tokens[0], value)
                for answer in answers
                if (value := scores.get(answer.case_id)) is not None
            ),
            tuple(verdict.value for verdict in verdicts if verdict.value is not None),
        )


class PassageRetriever:
    """BM25 search over the passages of one context; the index is built at the first search."""

    def __init__(self, context: str, *, passage_tokens: int, top_k: int) -> None:
        self._context, self._passage_tokens, self._top_k = context, passage_tokens, top_k
        self._passages: list[str] = []
        self._index: Index | None = None
        self._lock = asyncio.Lock()

    async def search(self, facts: list[str]) -> list[str]:
        """Return, for each fact, the `top_k` passages in the order of the text, numbered."""
        async with self._lock:  # the sentences of an answer search concurrently; the first one builds the index
            if self._index is None:
                self._index = await asyncio.to_thread(self._build_index)
        results = await self._index.search(facts, self._top_k)
        return [
            "\n\n".join(
                f"Passage {number}:\n{self._passages[index].strip()}" for number, index in enumerate(indices, start=1)
            )
            for indices in results
        ]

    def _build_index(self) -> Index:
        spans = split_text(self._context, self._passage_tokens, SimpleTokenizer())
        self._passages = [self._context[span.start : span.end] for span in spans]
        return Bm25Retriever().index(self._passages)


def read_cases(path: Path) -> tuple[FactScoreCase, ...]:
    """Read all questions, in order. Raises DataError for a malformed row or a duplicate idx."""
    cases: dict[str, FactScoreCase] = {}
    for case in scan_cases(IndexedJsonl(path, _parse_case)):
        if case.id in cases:
            raise DataError(f"{path}: duplicate idx {case.id!r}")
        cases[case.id] = case
    return tuple(cases.values())


def _parse_case(row: Row) -> FactScoreCase:
    context, query = (parse_text(row, key, allow_blank=False) for key in ("context", "query"))
    if not isinstance(row.get("idx"), str | int):
        raise RowError(f"idx is {row.get('idx')!r}, expected a string or a number")
    category = str(row.get("category") or "all")
    return FactScoreCase(str(row["idx"]), query, category, read_context=lambda: context)


def parse_facts(text: str) -> tuple[str, ...] | None:
    """Parse a list of facts, without duplicates; empty if the judge replies that there are none, None if unreadable.

    >>> parse_facts("- Keld is a village.\\n- Keld lies on the Tarn.\\n- Keld is a village.")
    ('Keld is a village.', 'Keld lies on the Tarn.')
    """
    facts = tuple(dict.fromkeys(item.strip() for item in _LIST_ITEM.findall(text) if _WORD.search(item)))
    if facts:
        return () if len(facts) == 1 and _NO_FACTS.match(facts[0]) else facts
    return () if _NO_FACTS.match(text.strip()) else None


def is_abstention(text: str) -> bool:
    """Return whether an answer declines to answer, by FactScore's generic rule.

    >>> is_abstention("I'm sorry, I do not know."), is_abstention("Keld was founded in 1905.")
    (True, False)
    """
    return text.startswith("I'm sorry") or "provide more" in text


def length_penalty(facts: int, gamma: int) -> float:
    """Return the factor by which the score of an answer with so many facts is multiplied.

    >>> length_penalty(12, 10), round(length_penalty(5, 10), 4), length_penalty(5, 0)
    (1.0, 0.3679, 1.0)
    """
    return 1.0 if facts > gamma else math.exp(1 - gamma / facts)


def parse_published_verdict(text: str) -> float:
    """Parse a verdict as FactScore's code does: 1 (supported) or 0.

    If the reply contains "true" or "false", the one that occurs later wins. Otherwise the fact is supported unless one
    of four words occurs.

    >>> parse_published_verdict("True."), parse_published_verdict("It is not true, it is false.")
    (1.0, 0.0)
    >>> parse_published_verdict("False? No, it is true."), parse_published_verdict("The context agrees.")
    (1.0, 1.0)
    """
    lower = text.lower()
    true_position, false_position = lower.find("true"), lower.find("false")
    if true_position >= 0 or false_position >= 0:
        return float(true_position > false_position)
    words = lower.translate(str.maketrans("", "", string.punctuation)).split()
    return float(not any(word in words for word in ("not", "cannot", "unknown", "information")))


def parse_strict_verdict(text: str) -> float | None:
    """Parse a reply that starts with True or False; None for any other.

    >>> parse_strict_verdict("**False**: it was built in 1901."), parse_strict_verdict("I think it is true.")
    (0.0, None)
    """
    match = _VERDICT.match(text)
    return None if match is None else float(match.group(1).lower() == "true")


def _verdict(
    case: FactScoreCase,
    part: str,
    request: ChatRequest,
    reply: ParsedReply[Any],
    *,
    value: float | None,
    sentence: str,
    fact: str | None,
) -> Verdict:
    return Verdict.from_reply(
        case.id,
        part,
        request,
        reply,
        value=value,
        unscored_reason="the reply starts with neither True nor False",
        metadata={"sentence": sentence, "fact": fact, "official": False},
    )


def _percentage(values: Sequence[float | None]) -> float | None:
    """Return the percentage of ones among the values that are not None; None if there are none."""
    scored = [value for value in values if value is not None]
    return SCALE * sum(scored) / len(scored) if scored else None
