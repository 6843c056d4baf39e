"""What a stage made, as a table for reading in MLflow: some rows, evenly spaced, long texts cut, no documents.

sample = Sample(PAIR_COLUMNS, of=len(outcomes))
for pair in sample.passing(pairs, pair_cells):
    …                                             # each pair goes through, some leave a row
sample.keep(run.tracked, "pairs.json")
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from longreward.evaluation.example_metrics import MAX_TEXT_CHARS, truncate
from longreward.records import DIMENSIONS, Dimension, PreferencePair, ScoredResponse, Statement, Verdict
from longreward.reward import ScoredExample
from longreward.tasks.tracking import Run
from longreward.tasks.tracking.run import Span

T = TypeVar("T")
Left = TypeVar("Left")
Cells = list[Any]
ROWS = 200
PAIR_COLUMNS = ("id", "query", "chosen", "rejected", "chosen reward", "rejected reward", "margin")
SCORE_COLUMNS = ("id", "query", "answer", "reward", *DIMENSIONS, "not scored because")


class EvenlySpacedSample(Generic[Left]):
    """What at most `limit` of some items leave behind, of which `of` will pass."""

    def __init__(self, *, of: int, limit: int = ROWS) -> None:
        self.of, self.limit = of, limit
        self.rows: list[Left] = []
        self.passed = 0

    def passing(self, items: Iterable[T], leave: Callable[[T], Left]) -> Iterator[T]:
        """The items unchanged; the first, and then evenly spaced ones, leave a row."""
        share = min(self.limit / max(self.of, 1), 1.0)
        for item in items:
            if len(self.rows) < min(int(self.passed * share) + 1, self.limit):
                self.rows.append(leave(item))
            self.passed += 1
            yield item


class TableSample(EvenlySpacedSample[Cells]):
    """A table of such rows."""

    def __init__(self, columns: Sequence[str], *, of: int, limit: int = ROWS) -> None:
        super().__init__(of=of, limit=limit)
        self.columns = columns

    def keep(self, run: Run, name: str) -> None:
        """Logs the table, and says on the run's page how many of how many it shows."""
        run.table(name, {"columns": list(self.columns), "data": self.rows})
        shown = f"`{name}` shows {len(self.rows)} of {self.passed}, evenly spaced"
        run.note(f"{shown}; a text is cut at {MAX_TEXT_CHARS} characters.")


def pair_cells(pair: PreferencePair) -> Cells:
    """A row of PAIR_COLUMNS."""
    texts = [truncate(text) for text in (pair.query, pair.chosen.text, pair.rejected.text)]
    return [pair.id, *texts, pair.chosen_reward, pair.rejected_reward, pair.margin]


def score_cells(example: ScoredExample) -> Cells:
    """A row of SCORE_COLUMNS: the first response to an example."""
    first = example.responses[0]
    reasons = [f"{name}: {verdict.reason}" for name, verdict in first.verdicts.items() if verdict.score is None]
    scores = [verdict.score if (verdict := first.verdicts.get(name)) else None for name in DIMENSIONS]
    texts = [truncate(first.response.query), truncate(first.response.text)]
    return [first.response.id, *texts, first.reward, *scores, "; ".join(reasons) or None]


# How a response got its reward, as a trace to read in MLflow: each dimension, and each statement with its evidence.


TRACED = 20
"""Responses, evenly spaced, of a stage."""


def scoring_trace(example: ScoredExample) -> Span:
    """Of the first response to an example. Long texts are cut; of the document there is what the judge was shown as
    evidence."""
    first: ScoredResponse = example.responses[0]
    extracts = [one.text for one in example.extraction.extracts if one.text]
    return Span(
        "reward",
        {"id": first.response.id, "query": truncate(first.response.query), "response": truncate(first.response.text)},
        {"reward": first.reward},
        tuple(
            _dimension(name, verdict, extracts)
            for name in DIMENSIONS
            if (verdict := first.verdicts.get(name)) is not None
        ),
    )


def _dimension(name: Dimension, verdict: Verdict, extracts: list[str]) -> Span:
    known = {"score": verdict.score, "analysis": verdict.analysis, "why unscored": verdict.reason}
    seen = {"extracts": [truncate(text) for text in extracts]} if name == "completeness" else {}
    outputs = {label: value for label, value in known.items() if value is not None}
    return Span(name, seen, outputs, tuple(map(_statement, verdict.statements)))


def _statement(statement: Statement) -> Span:
    evidence = [truncate(chunk.text) for chunk in statement.evidence]
    known = {"support": statement.support, "analysis": statement.analysis, "why unreadable": statement.reason}
    outputs = {label: value for label, value in known.items() if value is not None}
    return Span("statement", {"statement": truncate(statement.text), "evidence": evidence}, outputs)
