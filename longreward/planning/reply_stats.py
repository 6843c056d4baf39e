"""Expected replies: their length, their number of statements and the attempts, measured in the ledger or assumed.

docs/costs.md lists all assumptions.
"""

import re
import sqlite3
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from longreward.judge.prompts import PromptSet
from longreward.reward.parser_sets import PARSERS

MAX_ROWS = 20_000  # the newest rows of the ledger: enough for statistics, and fast for ledgers of any size
MIN_REPLIES = 20  # of a judge to a template; with fewer, assumptions are used
SELECT_NEWEST = """
SELECT judge, template, prompt_hash, question, completion_tokens, CASE template WHEN 'statements' THEN text END
FROM exchanges ORDER BY rowid DESC LIMIT ?
"""
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|[。！？；]|\n+")


@dataclass(frozen=True)
class Range:
    """An uncertain number: `low <= expected <= high`; all three are equal if it is known."""

    low: float = 0.0
    expected: float = 0.0
    high: float = 0.0

    @classmethod
    def exactly(cls, value: float) -> Self:
        """Return a known number."""
        return cls(value, value, value)

    @classmethod
    def combine(cls, function: Callable[..., float], *ranges: "Range") -> Self:
        """Apply a function that increases in all arguments to the low, expected and high values of `ranges`."""
        return cls(
            function(*(value.low for value in ranges)),
            function(*(value.expected for value in ranges)),
            function(*(value.high for value in ranges)),
        )

    @classmethod
    def around_mean(cls, values: Sequence[int]) -> Self:
        """Return the mean of at least two values, between their quartiles."""
        mean = statistics.fmean(values)
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(min(low, mean), mean, max(high, mean))

    def __add__(self, other: "Range") -> "Range":
        return Range(self.low + other.low, self.expected + other.expected, self.high + other.high)

    def __mul__(self, other: "Range | float") -> "Range":
        """Multiply by a range or number that is not negative."""
        factor = other if isinstance(other, Range) else Range.exactly(other)
        return Range(self.low * factor.low, self.expected * factor.expected, self.high * factor.high)

    @property
    def is_exact(self) -> bool:
        return self.low == self.high


RATING_TOKENS = Range(60, 150, 400)
# Tokens of one reply. The prompts ask for a short analysis and a verdict.
ASSUMED_REPLY_TOKENS: Mapping[str, Range] = {
    "helpfulness": RATING_TOKENS,
    "logicality": RATING_TOKENS,
    "completeness": RATING_TOKENS,
    "support": Range(30, 80, 250),
    "support_list": Range(60, 200, 500),
    "extraction": Range(20, 150, 600),
    **dict.fromkeys(("citation_support", "citation_relevance", "citation_need"), Range(30, 80, 250)),
}
LISTED_STATEMENT_TOKENS = Range(20, 30, 45)  # per statement in the reply that lists them
STATEMENTS_PER_SENTENCE = Range(0.5, 1.0, 2.0)
REASONING_SHARE = Range(0.1, 0.4, 1.0)  # of judge.thinking_tokens


@dataclass(frozen=True)
class ReplyStats:
    """Statistics of one judge's replies to one template."""

    completion_tokens: Range
    """Per reply."""
    attempts: float = 1.0
    """Mean number of calls until a reply is readable."""
    statements: Range | None = None
    """Statements per response; only for the template `statements`."""
    replies: int = 0
    """Number of replies in the sample."""


def read_reply_stats(ledger: Path | None, prompts: PromptSet) -> Mapping[tuple[str, str], ReplyStats]:
    """Return statistics by judge and template from the newest replies to these prompts.

    Pairs with fewer than MIN_REPLIES replies are left out. A ledger that is missing or unreadable has no statistics.
    """
    if ledger is None or not ledger.is_file():
        return {}
    hashes = {template.hash for template in prompts.templates.values()}
    try:
        # Not LedgerReader: statistics do not need checksums, and must not fail for a ledger of another version.
        with sqlite3.connect(f"file:{ledger.resolve()}?mode=ro", uri=True, timeout=5) as connection:
            rows = connection.execute(SELECT_NEWEST, (MAX_ROWS,)).fetchall()
        connection.close()
    except sqlite3.Error:  # opening the file as a ledger reports the reason
        return {}
    replies: dict[tuple[str, str], list[tuple[str, int, str | None]]] = defaultdict(list)
    for judge, template, prompt_hash, request_id, tokens, text in rows:
        if prompt_hash in hashes:
            replies[judge, template].append((request_id, tokens, text))
    parse = PARSERS[prompts.parsing].statements
    stats = {}
    for key, group in replies.items():
        if len(group) < MIN_REPLIES:
            continue
        # Only replies to the template `statements` have a text here.
        parsed = [parse(text, prompts.manifest.no_statement) for _, _, text in group if text is not None]
        counts = [len(statements) for statements in parsed if statements is not None]
        stats[key] = ReplyStats(
            completion_tokens=Range.around_mean([tokens for _, tokens, _ in group]),
            # Several attempts at one request have the same id.
            attempts=len(group) / len({request_id for request_id, _, _ in group}),
            statements=Range.around_mean(counts) if len(counts) >= MIN_REPLIES else None,
            replies=len(group),
        )
    return stats


def expected_reply_tokens(
    template: str, *, statements: Range, limit: int, reasoning_limit: int, stats: ReplyStats | None
) -> Range:
    """Return the tokens of one reply, including reasoning.

    Args:
        template: the prompt template.
        statements: expected number of statements in a reply to the template `statements`.
        limit: token limit of the template.
        reasoning_limit: `judge.thinking_tokens`.
        stats: statistics of earlier replies, if there are enough.
    """
    if stats is not None and stats.completion_tokens.high > 0:
        return stats.completion_tokens
    tokens = (
        LISTED_STATEMENT_TOKENS * statements
        if template == "statements"
        else ASSUMED_REPLY_TOKENS.get(template, RATING_TOKENS)
    )
    return Range.combine(lambda value: min(value, limit), tokens) + REASONING_SHARE * float(reasoning_limit)


def expected_statements(response: str, stats: ReplyStats | None) -> Range:
    """Return the number of statements that a judge finds in a response: as in earlier ones, else one per sentence."""
    if stats is not None and stats.statements is not None:
        return stats.statements
    return STATEMENTS_PER_SENTENCE * float(count_sentences(response))


def count_sentences(text: str) -> int:
    """Count the sentences of English or Chinese prose or of a list; 0 for an empty text."""
    return len([part for part in SENTENCE_END.split(text) if part.strip()])
