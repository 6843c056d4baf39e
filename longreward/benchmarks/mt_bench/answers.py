"""A model's answers in FastChat's form: `model_answer/<model>.jsonl`, and `reference_answer/<judge>.jsonl` alike.

    {"question_id": 81, "answer_id": "3f…", "model_id": "sft", "choices": [{"index": 0, "turns": ["…", "…"]}],
     "tstamp": 1700000000.0}

The first choice is judged. Of several rows about a question the last one counts.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longreward.benchmarks.types import Answer
from longreward.errors import DataError
from longreward.utils.jsonl import Row, RowError, read_records, write_rows

if TYPE_CHECKING:
    from longreward.benchmarks.mt_bench.cases import MtCase

TurnsOf = Mapping[str, tuple[str, ...]]


def read_turns(path: Path) -> dict[str, tuple[str, ...]]:
    """The turns of each question's answer, by the question's id. Raises DataError at the first bad row."""
    return {name: turns for name, turns, _ in read_records(path, _turns_of)}


def read_answers(path: Path, cases: Sequence["MtCase"]) -> list[Answer]:
    """Answers that were written by any program, in the order of `cases`; those to other questions are left out.

    Nothing is known of their tokens (0) and ends (None). Raises DataError where a question has no answer, or one of
    fewer turns.
    """
    rows = {name: (turns, created) for name, turns, created in read_records(path, _turns_of)}
    return [_answer(case, *rows.get(case.id, ((), 0.0)), path) for case in cases]


def reference_answer(case: "MtCase") -> Answer:
    """The case's reference answers as an answer."""
    return _made(case, case.references, 0.0)


def write_answers(path: Path, answers: Iterable[Answer], cases: Mapping[str, "MtCase"], *, model: str) -> None:
    """Writes the whole file anew. The same answers give the same `answer_id`s."""
    write_rows(path, (_row(answer, cases[answer.case_id], model) for answer in answers))


def question_id_of(row: Row) -> int | str:
    """The question's id as it stands in the file, so that it is written as it was read."""
    found = row.get("question_id")
    if isinstance(found, bool) or not isinstance(found, int | str) or found == "":
        raise RowError(f"question_id is {found!r}, expected a number or a name")
    return found


def texts_of(value: Any, name: str) -> tuple[str, ...]:
    """A list of texts, at least one."""
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise RowError(f"{name} is not a list of one text or more")
    return tuple(value)


def time_of(row: Row) -> float:
    """When the row was made, in seconds since 1970; 0 where it does not say."""
    found = row.get("tstamp", 0.0)
    return float(found) if isinstance(found, int | float) else 0.0


def _turns_of(row: Row) -> tuple[str, tuple[str, ...], float]:
    choices = row.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise RowError('choices is not a list of objects such as {"index": 0, "turns": ["…"]}')
    return str(question_id_of(row)), texts_of(choices[0].get("turns"), "choices[0].turns"), time_of(row)


def _answer(case: "MtCase", turns: tuple[str, ...], created: float, path: Path) -> Answer:
    if len(turns) < len(case.turns):
        had = f"an answer of {len(turns)} turn" if turns else "no answer"
        raise DataError(f"{path} has {had} to question {case.id}, which has {len(case.turns)}; answer all questions")
    return _made(case, turns[: len(case.turns)], created)


def _made(case: "MtCase", turns: tuple[str, ...], created: float) -> Answer:
    count = len(turns)
    return Answer(
        case_id=case.id,
        turns=turns,
        tokens=(0,) * count,
        finish_reasons=(None,) * count,
        prompt_tokens=(0,) * count,
        cut=False,
        created=created,
    )


def _row(answer: Answer, case: "MtCase", model: str) -> Row:
    said = json.dumps([answer.case_id, model, answer.turns])
    return {
        "question_id": case.question_id,
        "answer_id": hashlib.sha256(said.encode()).hexdigest()[:22],
        "model_id": model,
        "choices": [{"index": 0, "turns": list(answer.turns)}],
        "tstamp": answer.created,
    }
