"""Annotations of AlpacaEval that another program collected: their preferences become verdicts, without a judge.

    [{"instruction": "…", "output_1": "…", "generator_1": "gpt4_1106_preview", "output_2": "…", "generator_2": "sft",
      "dataset": "helpful_base", "annotator": "weighted_alpaca_eval_gpt4_turbo", "preference": 1.73,
      "raw_completion": {"text": "M", "logprobs": {"content": […]}}}, …]

The preference is 1 if the baseline's output_1 is better, 2 if the model's output_2 is, and anything between for
weighted annotators; 0 and 1.5 are draws. It may be a text, and null where the annotator's reply was not parsed: then it
is parsed from `raw_completion`, whose letters are of the order in which AlpacaEval shows the two outputs. Other values
are unscored, as the library drops them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longreward.benchmarks.alpaca_eval.benchmark import (
    EQUAL_PREFERENCE,
    TEMPLATE,
    AlpacaEval,
    is_switched,
    parse_preference,
    undo_switch,
)
from longreward.benchmarks.predictions import text_answer
from longreward.benchmarks.published_formats import parse_text, read_json, read_json_list
from longreward.benchmarks.types import Answer, Verdict
from longreward.chat_model import with_logprobs
from longreward.errors import DataError
from longreward.judge.prompts import Parsing
from longreward.utils.jsonl import Row, shorten


@dataclass(frozen=True)
class Annotations:
    """The answers and verdicts of one model, for the cases of the benchmark that the file has."""

    model: str
    annotator: str
    answers: tuple[Answer, ...]
    verdicts: tuple[Verdict, ...]
    unmatched: int
    """Annotations of instructions that are not among the benchmark's cases."""


def is_annotations(path: Path) -> bool:
    """Return whether the file is a list of annotations."""
    rows = read_json(path) if path.suffix == ".json" else None
    return (
        isinstance(rows, list)
        and bool(rows)
        and isinstance(rows[0], dict)
        and {"output_2", "preference"} <= rows[0].keys()
    )


def read_annotations(path: Path, benchmark: AlpacaEval, *, parsing: Parsing) -> Annotations:
    """Read the annotations of one model.

    Raises DataError for a bad row, several models, another baseline, or if no instruction matches.
    """
    rows: list[Row] = read_json_list(path, lambda row, index: _check_row(row))
    cases = {case.instruction: case for case in benchmark.cases}
    models = sorted({str(row.get("generator_2")) for row in rows})
    if len(models) > 1:
        raise DataError(f"{path} has annotations of {len(models)} models ({', '.join(models[:3])}, …); keep one")
    matched = [(cases[row["instruction"]], row) for row in rows if row["instruction"] in cases]
    if not matched:
        raise DataError(
            f"{path}: none of {len(rows)} instructions is among those of the benchmark; name the folder with its "
            "published files by --folder, or leave it out to use the file's own instructions"
        )
    different = next((case.id for case, row in matched if row["output_1"] != case.output), None)
    if different is not None:
        raise DataError(f"{path}: output_1 of instruction {different} is not the output of the benchmark's baseline")
    return Annotations(
        models[0],
        ", ".join(dict.fromkeys(str(row.get("annotator")) for row in rows)),
        tuple(text_answer(case.id, row["output_2"], case.instruction) for case, row in matched),
        tuple(_verdict(case.id, row, parsing) for case, row in matched),
        unmatched=len(rows) - len(matched),
    )


def _check_row(row: Any) -> Row:
    for key in ("instruction", "output_1", "output_2"):
        parse_text(row, key)
    return dict(row)


def _verdict(case_id: str, row: Row, parsing: Parsing) -> Verdict:
    preference, weighted = _stated_preference(row.get("preference")), True
    reason = None if preference is not None else f"the preference is {shorten(row.get('preference'))}"
    if row.get("preference") is None and isinstance(raw := row.get("raw_completion"), Mapping | str):
        text, logprobs = (raw, None) if isinstance(raw, str) else (raw.get("text"), raw.get("logprobs"))
        shown = parse_preference(with_logprobs(str(text), logprobs), parsing=parsing)
        preference, weighted = undo_switch(shown.value, is_switched(row["instruction"])), shown.weighted
        reason = None if preference is not None else "neither the preference nor raw_completion has a verdict"
    return Verdict(
        case_id,
        "preference",
        TEMPLATE,
        "",
        "",
        "",
        value=None if preference is None else preference - 1,
        reason=reason,
        judge=str(row.get("annotator") or ""),
        metadata={
            "preference": preference,
            "official": False,
            "switched": False,
            "weighted": weighted,
            "identical": row["output_1"] == row["output_2"],
        },
    )


def _stated_preference(value: object) -> float | None:
    """Return a preference from 1 to 2; None for everything else."""
    try:
        preference = float(value)  # type: ignore[arg-type]  # numbers and texts; others raise
    except (TypeError, ValueError):
        return None
    if preference == 0:
        return EQUAL_PREFERENCE
    return preference if math.isfinite(preference) and 1 <= preference <= 2 else None
