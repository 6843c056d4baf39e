"""The questions: `question.jsonl`, with the reference answers of those categories that have them.

{"question_id": 101, "category": "reasoning", "turns": ["Imagine you are …", "If the …"]}
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from longreward.benchmarks.mt_bench.answers import TurnsOf, question_id_of, read_turns, texts_of
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
