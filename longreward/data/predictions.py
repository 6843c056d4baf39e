"""Predictions that another tool generated, in the tool's own file format.

    predictions   {"id": "7", "response": "…"}                                any tool; `responses` for several samples
                  {"prompt": "…", "response": "…"}                            without ids
    alpaca_eval   {"instruction": "…", "output": "…", "generator": "…"}       model_outputs.json
                  {"instruction": "…", "output_2": "…", "generator_2": "…"}   annotations.json
    lm_eval       {"doc_id": 0, "doc": {…}, "arguments": …, "resps": [["…"]], …}   samples_<task>_<date>.jsonl
    longbench     {"pred": "…", "answers": […], "length": 4014}               pred/<model>/<set>.jsonl, in file order
    infinitebench {"id": 0, "prediction": "…", "ground_truth": "…"}           preds_<task>.jsonl

Of lm-eval's logs the raw replies (`resps`) are read: `filtered_resps` is what a filter of the task extracted from them.
A log has one row per document and filter, of which the first counts.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from longreward.config import Config
from longreward.data.file_source import find_files
from longreward.data.source import RejectedRecord, describe_rejected, recognize_format
from longreward.errors import ConfigError, DataError
from longreward.utils.jsonl import Row, RowError, missing_key, shorten

AUTO = "auto"
LM_EVAL_FILE = re.compile(r"samples_(?P<task>.+?)(?:_\d{4}-\d{2}-\d{2}T[\d:.-]+)?")
DOC_IDS = ("idx", "_id", "id")
DOC_PROMPTS = ("query", "question", "input", "instruction", "prompt")


class PredictionColumns(Config):
    """Which column of a file of the format `predictions` contains what."""

    id: str = "id"
    """The id of the example or case, a text or whole number. May be missing if there is a prompt."""
    prompt: str = "prompt"
    """The question or instruction. May be missing if there is an id."""
    response: str = "response"
    """The response, a text; or a list of texts, several samples."""


@dataclass(frozen=True)
class Prediction:
    """A model's responses to one prompt, which is known by one of id, position and prompt."""

    responses: tuple[str, ...]
    id: str | None = None
    prompt: str | None = None
    position: tuple[str, int] | None = None
    """The name of a data set and the number of the record in it, from 0."""
    context: str | None = None
    """The document, if the file repeats it."""
    model: str | None = None


@dataclass
class PredictionFile:
    """The predictions of a file, and the rows that are none."""

    format: str
    predictions: list[Prediction] = field(default_factory=list)
    rejected: list[RejectedRecord] = field(default_factory=list)

    def describe_rejected(self) -> str:
        """Return how many rows are left out, with the first of them."""
        return describe_rejected(self.rejected, total=len(self.rejected) + len(self.predictions))

    @property
    def models(self) -> list[str]:
        """The names of the models, as far as the file has them."""
        return list(dict.fromkeys(prediction.model for prediction in self.predictions if prediction.model is not None))


def read_predictions(
    name: str, *, format_name: str = AUTO, columns: PredictionColumns | None = None, root: Path = Path()
) -> PredictionFile:
    """Read a file: jsonl, json, csv or parquet, also compressed. A bad row is rejected with its line and reason.

    Args:
        format_name: One of `FORMATS`; auto: by the columns of the first row.
        columns: The columns of the format `predictions`; if any differs from its default, that is the format.

    Raises:
        ConfigError: The format does not exist.
        DataError: The file cannot be read, has no known format, or no row of it is a prediction.
    """
    columns = columns or PredictionColumns()
    if columns != PredictionColumns():
        format_name = "predictions"
    elif format_name not in (AUTO, *FORMATS):
        raise ConfigError(f"the format {format_name!r} does not exist; the formats are {', '.join(FORMATS)}")
    file = PredictionFile(format_name)
    for number, (location, row) in enumerate(find_files(root, name).rows()):
        try:
            if isinstance(row, RowError):
                raise row
            if file.format == AUTO:
                file.format = _detect_format(row)
            if file.format == "predictions":
                file.predictions.append(_parse_prediction(row, columns))
            else:
                file.predictions.append(FORMATS[file.format].parse(row, Path(location.file).stem, number))
        except DataError as error:
            raise DataError(f"{location}: {error}") from None
        except RowError as error:
            file.rejected.append(RejectedRecord(location, None, str(error)))
    if not file.predictions:
        raise DataError(f"{name}: no predictions. {file.describe_rejected()}")
    return file


@dataclass(frozen=True)
class PredictionFormat:
    """The columns by which a format is recognized, and its parser."""

    columns: tuple[frozenset[str], ...]
    """The row has all columns of one of these sets."""
    parse: Callable[[Row, str, int], Prediction]
    """Gets the row, the name of its file without suffix, and its number from 0. Raises RowError."""

    def recognizes(self, row: Row) -> bool:
        """Return whether the row has the columns of the format."""
        return any(required <= row.keys() for required in self.columns)


def _detect_format(row: Row) -> str:
    recognizers = {name: prediction_format.recognizes for name, prediction_format in FORMATS.items()}
    columns = "id or prompt and of response, as in --column response=output"
    return recognize_format(row, recognizers, columns=columns)


def _parse_prediction(row: Row, columns: PredictionColumns) -> Prediction:
    value = row.get(columns.response, row.get("responses"))
    if value is None and columns.response not in row:
        raise missing_key(columns.response, row)
    prediction_id, prompt = row.get(columns.id), row.get(columns.prompt)
    if prediction_id is None and prompt is None:
        raise missing_key(f"{columns.id} or {columns.prompt}", row)
    if isinstance(prediction_id, bool) or not isinstance(prediction_id, str | int | None):
        raise RowError(f"{columns.id} is {shorten(prediction_id)}, expected a text or whole number")
    return Prediction(
        _parse_responses(value if isinstance(value, list) else [value], columns.response),
        id=None if prediction_id is None else str(prediction_id),
        prompt=_optional_text(prompt, columns.prompt),
        model=row.get("model") if isinstance(row.get("model"), str) else None,
    )


def _parse_alpaca_eval(row: Row, stem: str, number: int) -> Prediction:
    suffix = "_2" if "output_2" in row else ""
    instruction = row.get("instruction")
    if not isinstance(instruction, str):
        raise RowError(f"instruction is {shorten(instruction)}, expected a text")
    responses = _parse_responses([row.get(f"output{suffix}")], f"output{suffix}")
    return Prediction(responses, prompt=instruction, model=_optional_text(row.get(f"generator{suffix}"), "generator"))


def _parse_lm_eval(row: Row, stem: str, number: int) -> Prediction:
    doc, doc_id, replies = row.get("doc"), row.get("doc_id"), row.get("resps")
    if not isinstance(doc_id, int) or isinstance(doc_id, bool):
        raise RowError(f"doc_id is {shorten(doc_id)}, expected a whole number")
    if not isinstance(replies, list) or len(replies) != 1 or not isinstance(replies[0], list):
        raise RowError("resps has no generated text: the task compares the probabilities of several answers")
    responses = _parse_responses(replies[0], "resps")
    fields: Mapping[str, Any] = doc if isinstance(doc, dict) else {}
    doc_prompt = next((fields[key] for key in DOC_PROMPTS if isinstance(fields.get(key), str)), None)
    row_id = next((fields[key] for key in DOC_IDS if isinstance(fields.get(key), str | int)), None)
    task = LM_EVAL_FILE.fullmatch(stem)
    return Prediction(
        responses,
        id=None if row_id is None else str(row_id),
        prompt=doc_prompt,
        position=(task["task"] if task else stem, doc_id),
        context=fields["context"] if isinstance(fields.get("context"), str) else None,
    )


def _parse_longbench(row: Row, stem: str, number: int) -> Prediction:
    return Prediction(_parse_responses([row.get("pred")], "pred"), position=(stem, number))


def _parse_infinitebench(row: Row, stem: str, number: int) -> Prediction:
    row_id = row.get("id")
    if not isinstance(row_id, int) or isinstance(row_id, bool):
        raise RowError(f"id is {shorten(row_id)}, expected the number of the case, from 0")
    return Prediction(_parse_responses([row.get("prediction")], "prediction"), position=(stem, row_id))


def _parse_responses(values: list[Any], name: str) -> tuple[str, ...]:
    if not values or not all(isinstance(value, str) for value in values):
        raise RowError(f"{name} is {shorten(values[0] if len(values) == 1 else values)}, expected a text")
    return tuple(values)


def _optional_text(value: object, name: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise RowError(f"{name} is {shorten(value)}, expected a text")
    return value


FORMATS: Mapping[str, PredictionFormat] = {
    "lm_eval": PredictionFormat((frozenset(("doc_id", "resps")),), _parse_lm_eval),
    "alpaca_eval": PredictionFormat(
        (frozenset(("instruction", "output")), frozenset(("instruction", "output_2"))), _parse_alpaca_eval
    ),
    "longbench": PredictionFormat((frozenset(("pred", "answers")),), _parse_longbench),
    "infinitebench": PredictionFormat((frozenset(("id", "prediction", "ground_truth")),), _parse_infinitebench),
    "predictions": PredictionFormat(
        tuple(frozenset((key, value)) for key in ("id", "prompt") for value in ("response", "responses")),
        lambda row, stem, number: _parse_prediction(row, PredictionColumns()),
    ),
}
