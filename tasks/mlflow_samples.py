"""Samples of a stage's records for reading in MLflow: table rows and traces, evenly spaced, long texts truncated.

sample = TableSample(PAIR_COLUMNS)
for pair in sample.collect(pairs, pair_row):
    …                                          # every pair passes, some are converted to rows
sample.log(run.mlflow, "pairs.json")
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from longreward.evaluation.example_metrics import MAX_TEXT_CHARS, truncate
from longreward.records import DIMENSIONS, PreferencePair, Verdict
from longreward.reward import ScoredExample
from longreward.tasks.tracking.run import Run, Span

T = TypeVar("T")
Row = TypeVar("Row")
TABLE_ROWS = 200
TRACES = 20  # per run of a stage; each costs about 0.07 s of CPU time with its four assessments, 0.05 s without
PAIR_COLUMNS = ("id", "query", "chosen", "rejected", "chosen reward", "rejected reward", "margin")
SCORE_COLUMNS = ("id", "query", "answer", "reward", *DIMENSIONS, "not scored because")


class EvenlySpacedSample(Generic[Row]):
    """Convert at most `limit` of any number of items to rows: the first one, and then evenly spaced ones."""

    def __init__(self, *, limit: int) -> None:
        self.limit = limit
        self.count = 0
        self._step = 1
        self._rows: list[Row] = []  # of every `_step`-th item; fewer than 2 * limit

    @property
    def rows(self) -> list[Row]:
        """The rows of the items so far."""
        count = min(len(self._rows), self.limit)
        return [self._rows[index * len(self._rows) // count] for index in range(count)]

    def add(self, item: T, to_row: Callable[[T], Row]) -> None:
        """Count an item, and convert it if it is one of the sample."""
        if self.count % self._step == 0:
            self._rows.append(to_row(item))
            if len(self._rows) == 2 * self.limit:
                del self._rows[1::2]
                self._step *= 2
        self.count += 1

    def collect(self, items: Iterable[T], to_row: Callable[[T], Row]) -> Iterator[T]:
        """Yield the items unchanged, and add them."""
        for item in items:
            self.add(item, to_row)
            yield item


class TableSample(EvenlySpacedSample[list[Any]]):
    """A sample that is logged as a table."""

    def __init__(self, columns: Sequence[str], *, limit: int = TABLE_ROWS) -> None:
        super().__init__(limit=limit)
        self.columns = columns

    def log(self, run: Run, name: str) -> None:
        """Log the table, and how much of all records it shows as the note of the run."""
        run.log_table(name, {"columns": list(self.columns), "data": self.rows})
        note = f"`{name}` shows {len(self.rows)} of {self.count}, evenly spaced"
        run.log_report("note.md", f"{note}; a text is cut at {MAX_TEXT_CHARS} characters.")


def pair_row(pair: PreferencePair) -> list[Any]:
    """Return the row of PAIR_COLUMNS."""
    texts = [truncate(text) for text in (pair.query, pair.chosen.text, pair.rejected.text)]
    return [pair.id, *texts, pair.chosen_reward, pair.rejected_reward, pair.margin]


def score_row(example: ScoredExample) -> list[Any]:
    """Return the row of SCORE_COLUMNS for the first response to an example."""
    first = example.responses[0]
    reasons = [f"{name}: {verdict.reason}" for name, verdict in first.verdicts.items() if verdict.score is None]
    scores = [verdict.score if (verdict := first.verdicts.get(name)) else None for name in DIMENSIONS]
    texts = [truncate(first.response.query), truncate(first.response.text)]
    return [first.response.id, *texts, first.reward, *scores, "; ".join(reasons) or None]


def scoring_trace(example: ScoredExample) -> Span:
    """Return how the first response to an example got its reward: each dimension, each statement with its evidence.

    Of the document it has only what the judge saw as evidence. The verdicts are assessments of the trace, named after
    their dimensions.
    """
    first = example.responses[0]
    extracts = [truncate(extract.text) for extract in example.extraction.extracts if extract.text]
    # The UI's list of traces shows the beginning of both.
    inputs = {"query": truncate(first.response.query), "id": first.response.id}
    outputs = {"response": truncate(first.response.text), "reward": first.reward}
    dimensions = []
    for name, verdict in first.verdicts.items():
        statements = tuple(
            Span(
                "statement",
                {
                    "statement": truncate(statement.text),
                    "evidence": [truncate(chunk.text) for chunk in statement.evidence],
                },
                _without_none(support=statement.support, analysis=statement.analysis, reason=statement.reason),
            )
            for statement in verdict.statements
        )
        judged = _without_none(score=verdict.score, analysis=verdict.analysis, reason=verdict.reason)
        dimensions.append(Span(name, {"extracts": extracts} if name == "completeness" else {}, judged, statements))
    verdicts: dict[str, Verdict] = dict(first.verdicts.items())
    tags = {"response": first.response.id}
    return Span("reward", inputs, outputs, tuple(dimensions), verdicts=verdicts, tags=tags)


def _without_none(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
