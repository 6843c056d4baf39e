"""An evaluation as two tables, which say all that a later comparison with another run needs.

    measures   {"columns": ["model", "decoding", "id", "document", "prompt", "recall", …], "data": [["sft", "greedy", …
    answers    {"columns": ["id", "document", "decoding", "query", "SFT", "DPO", "recall SFT", "recall DPO", …], …

The first has every answer, without its text. The second is for reading: both models' first answers to a prompt side by
side, greedy ones first, at most ANSWERS rows with texts of at most CHARACTERS each.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longreward.errors import DataError
from longreward.evaluation.config import MEASURES, Measure
from longreward.evaluation.measures import AnswerMeasures
from longreward.records import Example

MAX_TABLE_ROWS = 1000
MAX_TEXT_CHARS = 2000
Table = dict[str, list[Any]]
PLACE = ("model", "decoding", "id", "document", "prompt")


@dataclass(frozen=True)
class ExampleMetrics:
    """One answer's measures; `prompt` is the fingerprint of query and document, equal for equal prompts anywhere."""

    model: str
    decoding: str
    id: str
    document: str
    prompt: str
    values: Mapping[Measure, float]

    @property
    def example(self) -> str:
        """The id of the prompt in its own data."""
        return self.id.rpartition("-")[0]


def measures_table(measured: Iterable[AnswerMeasures], examples: Mapping[str, Example]) -> Table:
    """Every answer's measures; one that could not be taken is null."""
    prompts = {name: _fingerprint(example) for name, example in examples.items()}
    data = [
        [one.role, one.decoding, one.response.id, one.document_id, prompts[one.response.example_id]]
        + [one.values.get(measure) for measure in MEASURES]
        for one in measured
    ]
    return {"columns": [*PLACE, *MEASURES], "data": data}


def read_measures(table: Mapping[str, Any], *, source: str) -> list[ExampleMetrics]:
    """The answers of a measures table; raises DataError, which names `source`, where it is none."""
    columns, data = table.get("columns"), table.get("data")
    if not isinstance(columns, list) or not isinstance(data, list) or not set(PLACE) <= set(columns):
        raise DataError(f"{source} is no table of measures: expected the columns {', '.join(PLACE)}")
    taken = []
    for cells in data:
        row = dict(zip(columns, cells, strict=True))
        values = {measure: float(row[measure]) for measure in MEASURES if row.get(measure) is not None}
        taken.append(ExampleMetrics(**{name: str(row[name]) for name in PLACE}, values=values))
    return taken


def answers_table(
    measured: Iterable[AnswerMeasures], examples: Mapping[str, Example], *, limit: int = MAX_TABLE_ROWS
) -> Table:
    """The first answer of each model to a prompt, side by side with its measures."""
    pairs: dict[tuple[str, str], dict[str, AnswerMeasures]] = {}
    for one in measured:
        pairs.setdefault((one.decoding, one.response.example_id), {}).setdefault(one.role, one)
    in_order = sorted(pairs.items(), key=lambda item: item[0][0] != "greedy")[:limit]
    taken = {measure for _, pair in in_order for one in pair.values() for measure in one.values}
    shown = [measure for measure in MEASURES if measure in taken]
    columns = ["id", "document", "decoding", "query", "SFT", "DPO"]
    columns += [f"{measure} {model}" for measure in shown for model in ("SFT", "DPO")]
    data = [_side_by_side(examples[name], decoding, pair, shown) for (decoding, name), pair in in_order]
    return {"columns": columns, "data": data}


def _side_by_side(
    example: Example, decoding: str, pair: Mapping[str, AnswerMeasures], shown: Sequence[Measure]
) -> list[str | float | None]:
    sides = (pair.get("sft"), pair.get("dpo"))
    return [
        example.id,
        example.document_id,
        decoding,
        truncate(example.query),
        *(truncate(side.response.text) if side else None for side in sides),
        *(side.values.get(measure) if side else None for measure in shown for side in sides),
    ]


def truncate(text: str) -> str:
    """At most CHARACTERS of it, with a mark where there was more."""
    return text if len(text) <= MAX_TEXT_CHARS else text[: MAX_TEXT_CHARS - 1] + "…"


def _fingerprint(example: Example) -> str:
    return hashlib.blake2b(f"{example.query}\0{example.context}".encode(errors="replace"), digest_size=8).hexdigest()
