"""A number that is not known yet: what it is expected to be, and between which two it should lie."""

import re
import sqlite3
import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from longreward.judge.prompts import PromptSet
from longreward.reward.parsers import PARSERS
from longreward.utils.language import Language, detect_language


@dataclass(frozen=True)
class Range:
    """`low <= expected <= high`; all three are equal where the number is known."""

    low: float = 0.0
    expected: float = 0.0
    high: float = 0.0

    @classmethod
    def exactly(cls, value: float) -> Self:
        """A number that is known."""
        return cls(value, value, value)

    def __add__(self, other: "Range") -> "Range":
        return Range(self.low + other.low, self.expected + other.expected, self.high + other.high)

    def __mul__(self, other: "Range | float") -> "Range":
        """Of two that are not negative."""
        by = other if isinstance(other, Range) else Range.exactly(other)
        return Range(self.low * by.low, self.expected * by.expected, self.high * by.high)

    @property
    def known(self) -> bool:
        """Whether it is one number."""
        return self.low == self.high

    def as_json(self) -> dict[str, float]:
        """Its three numbers by name."""
        return {"low": self.low, "expected": self.expected, "high": self.high}


# What answers took so far, by judge and template, from the newest rows of the ledger.


@dataclass(frozen=True)
class ReplyStats:
    """How one judge answers the questions of one template."""

    completion_tokens: Range
    """Of one answer: quartiles around the mean."""
    attempts: float = 1.0
    """Calls until an answer could be read."""
    statements: Range | None = None
    """That it finds in one response; only of the template `statements`."""
    answers: int = 0
    """That this was learnt from; 0: assumed."""


def reply_stats(ledger: Path | None, prompts: PromptSet) -> Mapping[tuple[str, str], ReplyStats]:
    """By judge and template, where there are enough answers to the same prompts; empty where there is no ledger."""
    if ledger is None or not ledger.is_file():
        return {}
    hashes = {template.hash for template in prompts.templates.values()}
    try:
        with sqlite3.connect(f"file:{ledger.resolve()}?mode=ro", uri=True, timeout=5) as connection:
            rows = connection.execute(_NEWEST, (NEWEST,)).fetchall()
        connection.close()
    except sqlite3.Error:  # nothing to learn from; opening it as a ledger says what is wrong
        return {}
    found: dict[tuple[str, str], list[tuple[str, int, str | None]]] = defaultdict(list)
    questions: dict[tuple[str, str], set[str]] = defaultdict(set)
    for judge, template, prompt_hash, question, tokens, text in rows:
        if prompt_hash in hashes:
            found[judge, template].append((question, tokens, text))
            questions[judge, template].add(question)
    return {
        key: _habit(key[1], answers, len(questions[key]), prompts)
        for key, answers in found.items()
        if len(answers) >= ENOUGH
    }


def _habit(template: str, answers: list[tuple[str, int, str | None]], questions: int, prompts: PromptSet) -> ReplyStats:
    counts = None
    if template == "statements":
        marker = prompts.manifest.no_statement
        parse = PARSERS[prompts.parsing].statements
        parsed = [parse(text, marker) for _, _, text in answers if text is not None]
        known = [len(statements) for statements in parsed if statements is not None]
        counts = _spread(known) if len(known) >= ENOUGH else None
    tokens = [tokens for _, tokens, _ in answers]
    return ReplyStats(_spread(tokens), len(answers) / questions, counts, len(answers))


def _spread(values: list[int]) -> Range:
    mean = statistics.fmean(values)
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return Range(min(low, mean), mean, max(high, mean))


NEWEST = 20_000  # rows that are looked at: enough to learn from, and quick however large the ledger is
ENOUGH = 20  # answers of a judge to one template
_NEWEST = """
SELECT judge, template, prompt_hash, question, completion_tokens, CASE template WHEN 'statements' THEN text END
FROM exchanges ORDER BY rowid DESC LIMIT ?
"""


# What is assumed where nothing was measured yet. Every number is said in docs/costs.md.


# Tokens of one answer: (low, expected, high). The prompts ask for a short analysis and a verdict.
ANSWERS: Mapping[str, Range] = {
    "helpfulness": Range(60, 150, 400),
    "logicality": Range(60, 150, 400),
    "completeness": Range(60, 150, 400),
    "support": Range(30, 80, 250),
    "extraction": Range(20, 150, 600),
}
STATEMENT_TOKENS = Range(20, 30, 45)  # of one statement in the answer that lists them
STATEMENTS_A_SENTENCE = Range(0.5, 1.0, 2.0)
STATEMENT = 25  # tokens of one statement in the question about its support
THOUGHT_SHARE = Range(0.1, 0.4, 1.0)  # of judge.thinking_tokens
RESPONSE_SHARE = Range(0.1, 0.5, 1.0)  # of sample.max_new_tokens, where neither responses nor answers are there
ANSWER_SHARE = Range(0.5, 1.0, 2.0)  # of the data's own answers, where responses are not there
EXTRACT_TOKENS = Range(0.0, 60, 300)  # of what one part of a document holds, in the question about completeness
FIRST_TOKEN_S, TOKENS_A_SECOND = 1.0, 50.0  # of one call; the offline judge takes OFFLINE_S
OFFLINE_S = 0.002
BATCH_HOURS = 24.0  # that a provider may take for one round


def answer_tokens(template: str, *, statements: Range, limit: int, thinking: int, habit: ReplyStats | None) -> Range:
    """Of one answer, thoughts among them; `limit` is the prompt's own."""
    if habit is not None and habit.completion_tokens.high > 0:
        return habit.completion_tokens
    spoken = STATEMENT_TOKENS * statements if template == "statements" else ANSWERS[template]
    capped = Range(min(spoken.low, limit), min(spoken.expected, limit), min(spoken.high, limit))
    return capped + THOUGHT_SHARE * float(thinking)


def statements_in(response: str, habit: ReplyStats | None) -> Range:
    """How many statements a judge will find in it: as many as it found in others, else about one a sentence."""
    if habit is not None and habit.statements is not None:
        return habit.statements
    return STATEMENTS_A_SENTENCE * float(sentences(response))


def sentences(text: str) -> int:
    """Of prose, lists and Chinese alike; 0 only in an empty text."""
    return len([piece for piece in SENTENCE_END.split(text) if piece.strip()])


def stand_in(number: int, tokens: float, query: str) -> str:
    """A response of about so many tokens that is not there yet; each number gives another text."""
    language = detect_language(query)
    count = max(round(tokens / SENTENCE_TOKENS), 1)
    return f"{number}: " + SENTENCES[language] * count


SENTENCE_END = re.compile(r"(?<=[.!?])\s+|[。！？；]|\n+")
SENTENCES: Mapping[Language, str] = {
    "en": "The document says in its second part that the bridge over the river was opened to the public then. ",
    "zh": "文件的第二部分指出，这座桥当时向公众开放了。",
}
SENTENCE_TOKENS = 22
