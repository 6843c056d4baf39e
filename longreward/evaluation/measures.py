"""The measures of one answer: against the gold facts, by the judge, and its length."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from longreward.data.formats import response_from_row, response_to_row
from longreward.evaluation.config import Measure
from longreward.records import DIMENSIONS, Response, Role, ScoredResponse
from longreward.utils.jsonl import Row

GREEDY = "greedy"
MAX_GOLD_REWARD = 10.0
GoldMeasures = Callable[[str, str], Mapping[Measure, float] | None]
"""Maps (example id, answer) to recall, share of unsupported claims and exactness; None for an unknown example."""


@dataclass(frozen=True)
class Decoding:
    """How answers are sampled; `name` is part of every metric: `recall/t1`, `recall/greedy`."""

    temperature: float
    samples: int

    @property
    def name(self) -> str:
        """`greedy`, or `t` and the temperature."""
        return GREEDY if self.temperature == 0 else f"t{self.temperature:g}"


@dataclass(frozen=True)
class AnswerMeasures:
    """One answer to one held-out prompt; a measure without a value (an unscored verdict) is absent."""

    role: Role
    decoding: str
    document_id: str
    response: Response
    values: Mapping[Measure, float]

    @classmethod
    def from_row(cls, row: Row) -> Self:
        """Parse one line of the answers file."""
        return cls(row["model"], row["decoding"], row["document"], response_from_row(row), row["measures"])

    def row(self) -> Row:
        """Return one line of the answers file."""
        source = {"model": self.role, "decoding": self.decoding, "document": self.document_id}
        return source | response_to_row(self.response) | {"measures": dict(self.values)}


def load_gold_measures(path: Path) -> GoldMeasures:
    """Load the gold facts of the built-in or the natural corpus, `gold.jsonl`. Raises DataError."""
    from longreward.builtin.corpus import read_gold
    from longreward.builtin.gold import measure_against_gold
    from longreward.builtin.natural_corpus import is_natural_gold, read_natural_gold
    from longreward.builtin.natural_gold import measure_natural

    measures: dict[str, Callable[[str], Any]]
    if is_natural_gold(path):
        measures = {str(idx): partial(measure_natural, row=row) for idx, row in read_natural_gold(path).items()}
    else:
        measures = {str(idx): partial(measure_against_gold, row=row) for idx, row in read_gold(path).items()}

    def measure(example_id: str, text: str) -> Mapping[Measure, float] | None:
        measure_text = measures.get(example_id)
        if measure_text is None:
            return None
        result = measure_text(text)
        return {"recall": result.recall, "unsupported": result.unsupported, "exact": float(result.exact)}

    return measure


def gold_reward(measures: Mapping[Measure, float]) -> float:
    """Return recall times the share of supported claims, from 0 to 10.

    A product, so that a response without any fact of the question never wins by claiming nothing.
    """
    return MAX_GOLD_REWARD * measures["recall"] * (1 - measures["unsupported"])


def measure_answers(
    role: Role,
    decoding: Decoding,
    documents: Mapping[str, str],
    scored: Iterable[ScoredResponse],
    gold: GoldMeasures | None,
) -> Iterator[AnswerMeasures]:
    """Yield all measures of each answer; `documents` has the document's id of each example."""
    for answer in scored:
        response = answer.response
        values: dict[Measure, float] = {}
        if gold is not None and (gold_values := gold(response.example_id, response.text)) is not None:
            values |= gold_values
        # Unscored verdicts have no value: they must not become a number.
        for dimension in DIMENSIONS:
            verdict = answer.verdicts.get(dimension)
            if verdict is not None and verdict.score is not None:
                values[dimension] = verdict.score
        if answer.reward is not None:
            values["reward"] = answer.reward
        if response.tokens is not None:
            values["tokens"] = float(response.tokens)
        yield AnswerMeasures(role, decoding.name, documents[response.example_id], response, values)
