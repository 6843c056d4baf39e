"""The measures of an evaluation as two tables, which a later comparison with another run reads.

    measures   {"columns": ["model", "decoding", "id", "document", "prompt", "recall", …], "data": [["sft", "greedy", …
    answers    {"columns": ["id", "document", "decoding", "query", "SFT", "DPO", "recall SFT", "recall DPO", …], …

The first has the measures of every answer, without texts. The second is for reading: the first answers of both models
to a prompt side by side, greedy ones first, at most MAX_TABLE_ROWS rows with texts of at most MAX_TEXT_CHARS each.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from longreward.errors import DataError
from longreward.evaluation.config import MEASURES, Measure
from longreward.evaluation.measures import GREEDY, AnswerMeasures
from longreward.records import Example

MAX_TABLE_ROWS = 1000
MAX_TEXT_CHARS = 2000
Table = dict[str, list[Any]]
KEY_COLUMNS = ("model", "decoding", "id", "document", "prompt")


@dataclass(frozen=True)
class ExampleMetrics:
    """The measures of one answer; `prompt` is a hash of query and document, equal for equal prompts in any run."""

    model: str
    decoding: str
    id: str
    document: str
    prompt: str
    values: Mapping[Measure, float]

    @property
    def example(self) -> str:
        """The id of the prompt in its own run."""
        return self.id.rpartition("-")[0]


def prompt_hash(example: Example) -> str:
    """Return a hash of query and document: runs number their examples independently, so ids cannot identify prompts."""
    content = f"{example.query}\0{example.context}".encode(errors="replace")
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def measures_table(measured: Iterable[AnswerMeasures], prompts: Mapping[str, str]) -> Table:
    """Return the measures of every answer; missing ones are null. `prompts` has the hash of each example's prompt."""
    data = [
        [answer.role, answer.decoding, answer.response.id, answer.document_id, prompts[answer.response.example_id]]
        + [answer.values.get(measure) for measure in MEASURES]
        for answer in measured
    ]
    return {"columns": [*KEY_COLUMNS, *MEASURES], "data": data}


def read_measures(table: Mapping[str, Any], *, source: str) -> list[ExampleMetrics]:
    """Read a table of measures. Raises DataError, which names `source`, for any other table."""
    columns, data = table.get("columns"), table.get("data")
    if not isinstance(columns, list) or not isinstance(data, list) or not set(KEY_COLUMNS) <= set(columns):
        raise DataError(f"{source}: not a table of measures, expected the columns {', '.join(KEY_COLUMNS)}")
    metrics = []
    for cells in data:
        row = dict(zip(columns, cells, strict=True))
        values = {measure: float(row[measure]) for measure in MEASURES if row.get(measure) is not None}
        metrics.append(ExampleMetrics(**{column: str(row[column]) for column in KEY_COLUMNS}, values=values))
    return metrics


def answers_table(measured: Sequence[AnswerMeasures], *, limit: int = MAX_TABLE_ROWS) -> Table:
    """Return the first answer of each model to each prompt, side by side with their measures."""
    # First the prompts, so that the answers to those beyond the limit are not in memory.
    keys = dict.fromkeys((answer.decoding, answer.response.example_id) for answer in measured)
    greedy_first = sorted(keys, key=lambda key: key[0] != GREEDY)[:limit]
    pairs: dict[tuple[str, str], dict[str, AnswerMeasures]] = {key: {} for key in greedy_first}
    for answer in measured:
        if (pair := pairs.get((answer.decoding, answer.response.example_id))) is not None:
            pair.setdefault(answer.role, answer)
    available = {measure for pair in pairs.values() for answer in pair.values() for measure in answer.values}
    measures = [measure for measure in MEASURES if measure in available]
    data = []
    for (decoding, example_id), pair in pairs.items():
        sides, present = (pair.get("sft"), pair.get("dpo")), next(iter(pair.values()))
        texts = [truncate(side.response.text) if side else None for side in sides]
        values = [side.values.get(measure) if side else None for measure in measures for side in sides]
        source = [example_id, present.document_id, decoding, truncate(present.response.query)]
        data.append([*source, *texts, *values])
    columns = ["id", "document", "decoding", "query", "SFT", "DPO"]
    columns += [f"{measure} {model}" for measure in measures for model in ("SFT", "DPO")]
    return {"columns": columns, "data": data}


def truncate(text: str) -> str:
    """Return at most MAX_TEXT_CHARS characters, with an ellipsis if the text is longer."""
    return text if len(text) <= MAX_TEXT_CHARS else text[: MAX_TEXT_CHARS - 1] + "…"
