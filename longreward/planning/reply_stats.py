"""What answers took so far, by judge and template, from the newest rows of the ledger."""

import sqlite3
import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from longreward.judge.prompts import PromptSet
from longreward.planning.ranges import Range
from longreward.reward.parsers import PARSERS


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
