"""The questions: `question.jsonl`, with the reference answers of those categories that have them.

{"question_id": 101, "category": "reasoning", "turns": ["Imagine you are …", "If the …"]}
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
OTHER_TEMPERATURE = 0.7
WITH_REFERENCE = ("reasoning", "math", "coding")

TurnsOf = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class MtCase:
    """One question of one or two turns. `references` has an answer to each turn, or is empty."""

    question_id: int | str
    category: str
    turns: tuple[str, ...]
    references: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return str(self.question_id)

    @property
    def temperature(self) -> float:
        """At which models answer this category."""
        return TEMPERATURES.get(self.category, OTHER_TEMPERATURE)


def read_cases(questions: Path, references: Path | None) -> tuple[MtCase, ...]:
    """All questions in the order of their file.

    Raises DataError for a bad row, an id that is there twice, or a missing reference answer.
    """
    known = read_turns(references) if references is not None else {}
    cases = tuple(_with_reference(case, known, references) for case in read_records(questions, _case_of))
    seen: set[str] = set()
    for case in cases:
        if case.id in seen:
            raise DataError(f"{questions}: question_id {case.id} is there twice; each question needs its own")
        seen.add(case.id)
    return cases


def _case_of(row: Row) -> MtCase:
    turns, category = texts_of(row.get("turns"), "turns"), row.get("category")
    if not isinstance(category, str) or not category:
        raise RowError(f"category is {category!r}, expected a name such as writing or math")
    if len(turns) > 2:
        raise RowError(f"turns has {len(turns)} texts; the prompts of MT-Bench judge one or two")
    return MtCase(question_id_of(row), category, turns)


def _with_reference(case: MtCase, known: TurnsOf, file: Path | None) -> MtCase:
    if case.category not in WITH_REFERENCE:
        return case
    turns = known.get(case.id, ())
    if len(turns) < len(case.turns):
        where = f"{file} has {len(turns)} turns of one" if file is not None else "no file of them was given"
        raise DataError(
            f"question {case.id} ({case.category}) is judged by a reference answer to each of its {len(case.turns)} "
            f"turns, but {where}; take the reference_answer/<judge>.jsonl that belongs to the questions"
        )
    return MtCase(case.question_id, case.category, case.turns, turns[: len(case.turns)])


def read_turns(path: Path) -> dict[str, tuple[str, ...]]:
    """The turns of each question's answer, by the question's id. Raises DataError at the first bad row."""
    return {name: turns for name, turns, _ in read_records(path, _turns_of)}


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
