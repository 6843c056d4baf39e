"""MT-Bench's questions from `question.jsonl`, with reference answers for some categories.

{"question_id": 101, "category": "reasoning", "turns": ["Imagine you are …", "If the …"]}
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from longreward.benchmarks.published_formats import parse_texts
from longreward.errors import DataError
from longreward.utils.jsonl import Row, RowError, read_records

TEMPERATURES: Mapping[str, float] = {
    "writing": 0.7,
    "roleplay": 0.7,
    "stem": 0.1,
    "humanities": 0.1,
    "extraction": 0.0,
    "math": 0.0,
    "coding": 0.0,
    "reasoning": 0.0,
}
DEFAULT_TEMPERATURE = 0.7
REFERENCE_CATEGORIES = ("reasoning", "math", "coding")


@dataclass(frozen=True)
class MtCase:
    """One question of one or two turns; `references` has an answer to each turn, or is empty."""

    question_id: int | str
    category: str
    turns: tuple[str, ...]
    references: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return str(self.question_id)

    @property
    def temperature(self) -> float:
        """The temperature at which models answer this category."""
        return TEMPERATURES.get(self.category, DEFAULT_TEMPERATURE)


@dataclass(frozen=True)
class AnswerRow:
    """A row of an answers file: the turns of its first choice."""

    question_id: str
    turns: tuple[str, ...]
    created: float


def read_cases(questions: Path, references: Path | None) -> tuple[MtCase, ...]:
    """Read all questions, in order. Raises DataError for a malformed row, a duplicate id or a missing reference."""
    reference_rows = read_answer_rows(references) if references is not None else {}
    cases: dict[str, MtCase] = {}
    for case in read_records(questions, _parse_case):
        if case.id in cases:
            raise DataError(f"{questions}: duplicate question_id {case.id}")
        if case.category in REFERENCE_CATEGORIES:
            row = reference_rows.get(case.id)
            turns = row.turns if row is not None else ()
            if len(turns) < len(case.turns):
                location = f"{references} has {len(turns)}" if references is not None else "no file was given"
                raise DataError(
                    f"question {case.id} ({case.category}) needs reference answers to its {len(case.turns)} turns, but "
                    f"{location}; use the reference_answer/<judge>.jsonl that belongs to the questions"
                )
            case = replace(case, references=turns[: len(case.turns)])
        cases[case.id] = case
    return tuple(cases.values())


def read_answer_rows(path: Path) -> dict[str, AnswerRow]:
    """Read the rows of an answers file by question id; the last row of a question counts. Raises DataError."""
    return {row.question_id: row for row in read_records(path, _parse_answer)}


def parse_question_id(row: Row) -> int | str:
    """Return the question id with its type, so that it is written as it was read."""
    question_id = row.get("question_id")
    if isinstance(question_id, bool) or not isinstance(question_id, int | str) or question_id == "":
        raise RowError(f"question_id is {question_id!r}, expected a number or a string")
    return question_id


def parse_timestamp(row: Row) -> float:
    """Return the row's Unix time; 0 without one."""
    timestamp = row.get("tstamp", 0.0)
    return float(timestamp) if isinstance(timestamp, int | float) else 0.0


def _parse_case(row: Row) -> MtCase:
    turns, category = parse_texts(row, "turns"), row.get("category")
    if not isinstance(category, str) or not category:
        raise RowError(f"category is {category!r}, expected a name such as writing or math")
    if len(turns) > 2:
        raise RowError(f"turns has {len(turns)} texts; the prompts of MT-Bench judge one or two")
    return MtCase(parse_question_id(row), category, turns)


def _parse_answer(row: Row) -> AnswerRow:
    choices = row.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise RowError('choices is not a list of objects such as {"index": 0, "turns": ["…"]}')
    return AnswerRow(str(parse_question_id(row)), parse_texts(choices[0], "turns"), parse_timestamp(row))
