"""Convert predictions into the published file of sampled responses, which `longreward score` reads.

A prediction belongs to the example with its id, else to the only example with its question (and document, if the file
repeats it).
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from longreward.data.formats import hash_words, read_examples, response_to_row
from longreward.data.predictions import Prediction, PredictionFile
from longreward.errors import DataError
from longreward.records import Response
from longreward.utils.jsonl import write_rows


@dataclass(frozen=True)
class ImportReport:
    """What became of the predictions of a file."""

    responses: int
    examples: int
    """Examples that have a response."""
    unmatched: int
    """Predictions that belong to none of the examples, or to several."""
    repeated: int
    """Predictions with the texts of an earlier one for the same example."""


def import_predictions(file: PredictionFile, *, data: Path, out: Path) -> ImportReport:
    """Write the responses to the examples of `data`, numbered by example in the order of the file.

    Raises DataError for a bad record of `data`, and if no prediction belongs to an example.
    """
    queries: dict[str, str] = {}
    examples_by_query: dict[bytes, list[str]] = {}
    examples_by_text: dict[bytes, list[str]] = {}
    for example in read_examples(data):
        queries[example.id] = example.query
        examples_by_query.setdefault(_key(example.query), []).append(example.id)
        examples_by_text.setdefault(_key(example.context, example.query), []).append(example.id)

    def find_example(prediction: Prediction) -> str | None:
        if prediction.id in queries:
            return prediction.id
        if prediction.prompt is None:
            return None
        candidates = examples_by_query.get(_key(prediction.prompt), [])
        if prediction.context is not None:
            candidates = examples_by_text.get(_key(prediction.context, prediction.prompt), [])
        return candidates[0] if len(candidates) == 1 else None

    counts: Counter[str] = Counter()
    seen: set[tuple[str, tuple[str, ...]]] = set()
    unmatched: list[Prediction] = []
    repeated = 0

    def responses() -> Iterator[Response]:
        nonlocal repeated
        for prediction in file.predictions:
            example_id = find_example(prediction)
            if example_id is None:
                unmatched.append(prediction)
            elif (example_id, prediction.responses) in seen:  # lm-eval: one row per filter
                repeated += 1
            else:
                seen.add((example_id, prediction.responses))
                for text in prediction.responses:
                    number, counts[example_id] = counts[example_id], counts[example_id] + 1
                    yield Response(
                        id=f"{example_id}-{number}", example_id=example_id, query=queries[example_id], text=text
                    )

    rows = [response_to_row(response) for response in responses()]
    if not rows:
        raise DataError(
            f"none of {len(file.predictions)} predictions belongs to an example of {data}, whose ids are "
            f"{', '.join(list(queries)[:3])}, …; the first prediction has the id {unmatched[0].id!r} and the prompt "
            f"{(unmatched[0].prompt or '')[:60]!r}"
        )
    write_rows(out, rows)
    return ImportReport(len(rows), len(counts), len(unmatched), repeated)


def _key(*texts: str) -> bytes:
    return hash_words(" ".join(texts)).digest()
