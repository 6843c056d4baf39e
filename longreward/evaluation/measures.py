"""One answer's figures: what the gold facts say, what the judge says, how long it is."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longreward.data.formats import response_to_row
from longreward.evaluation.config import Measure
from longreward.records import DIMENSIONS, Example, Response, Role, ScoredResponse

GREEDY = "greedy"
GoldMeasure = Callable[[str, str], Mapping[str, float] | None]


@dataclass(frozen=True)
class Decoding:
    """How answers are drawn: `name` is part of every metric, as in `recall/t1` or `recall/greedy`."""

    temperature: float
    samples: int

    @property
    def name(self) -> str:
        """`greedy`, or `t` and the temperature."""
        return GREEDY if self.temperature == 0 else f"t{self.temperature:g}"


@dataclass(frozen=True)
class AnswerMeasures:
    """One answer to one held-out prompt; a measure that cannot be taken (an unscored verdict) is absent."""

    role: Role
    decoding: str
    document_id: str
    response: Response
    values: Mapping[Measure, float]

    def row(self) -> dict[str, Any]:
        """One line of the answers file."""
        place = {"model": self.role, "decoding": self.decoding, "document": self.document_id}
        return place | response_to_row(self.response) | {"measures": dict(self.values)}


def load_gold_measures(path: Path) -> GoldMeasure:
    """The built-in corpus's measures from its `gold.jsonl`; None for an example that the file does not know.

    Raises DataError where the file cannot be read.
    """
    from longreward.builtin.corpus import read_gold
    from longreward.builtin.gold import measure_against_gold as against_gold

    rows = {str(idx): row for idx, row in read_gold(path).items()}

    def take(example_id: str, text: str) -> Mapping[str, float] | None:
        row = rows.get(example_id)
        if row is None:
            return None
        taken = against_gold(text, row)
        return {"recall": taken.recall, "unsupported": taken.unsupported, "exact": float(taken.exact)}

    return take


def measure_answers(
    role: Role,
    decoding: Decoding,
    examples: Mapping[str, Example],
    scored: Iterable[ScoredResponse],
    gold: GoldMeasure | None,
) -> Iterator[AnswerMeasures]:
    """Takes all measures of each answer; `gold(example id, text)` gives recall, unsupported share and exactness."""
    for one in scored:
        response = one.response
        values: dict[Any, float] = {}
        if gold is not None and (found := gold(response.example_id, response.text)) is not None:
            values |= found
        for dimension in DIMENSIONS:
            verdict = one.verdicts.get(dimension)
            if verdict is not None and verdict.score is not None:
                values[dimension] = verdict.score
        if one.reward is not None:
            values["reward"] = one.reward
        if response.tokens is not None:
            values["tokens"] = float(response.tokens)
        yield AnswerMeasures(role, decoding.name, examples[response.example_id].document_id, response, values)
