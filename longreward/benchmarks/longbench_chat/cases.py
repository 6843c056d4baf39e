"""LongBench-Chat's cases and their scored example answers, in the published files.

test_cases.json   [{"idx": 1, "prompt": "<document>\\n\\n<question>", "query": …, "answer": …}, …]
few_shots.json    [[{"answer": …, "score": 10}, {…}, {…}], …]     the case of idx n has the list at place n - 1
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longreward.errors import DataError
from longreward.utils.language import detect_language

SHOTS = 3


@dataclass(frozen=True)
class Shot:
    """An answer that was scored before, as the judge is shown it; `score` as it is written in the file."""

    answer: str
    score: str


@dataclass(frozen=True)
class LongBenchChatCase:
    """One question about one long text."""

    idx: int
    prompt: str  # the whole of what the model is asked: the text, a blank line, the question
    query: str
    reference: str
    shots: tuple[Shot, Shot, Shot]

    @property
    def id(self) -> str:
        return str(self.idx)

    @property
    def category(self) -> str:
        """The question's language, told by its script: `en` or `zh`."""
        return detect_language(self.query)


def load_cases(cases: Path, few_shots: Path) -> tuple[LongBenchChatCase, ...]:
    """All cases in the order of their file; DataError names the file and the entry that is not as above."""
    rows, shots = _listed(cases), load_shots(few_shots)
    found = [_case(row, shots, f"{cases}, entry {place}", few_shots) for place, row in enumerate(rows, start=1)]
    seen: set[int] = set()
    for place, case in enumerate(found, start=1):
        if case.idx in seen:
            raise DataError(f"{cases}, entry {place}: the idx {case.idx} was there before; give each case its own")
        seen.add(case.idx)
    return tuple(found)


def load_shots(few_shots: Path) -> tuple[tuple[Shot, Shot, Shot], ...]:
    """The example answers of each case, in the order of the file."""
    return tuple(
        _shots(group, f"{few_shots}, entry {place}") for place, group in enumerate(_listed(few_shots), start=1)
    )


def _case(row: Any, shots: Sequence[tuple[Shot, Shot, Shot]], where: str, few_shots: Path) -> LongBenchChatCase:
    if not isinstance(row, Mapping):
        raise DataError(f"{where} is a JSON {type(row).__name__}, expected an object")
    idx = row.get("idx")
    if not isinstance(idx, int) or isinstance(idx, bool) or idx < 1:
        raise DataError(f"{where}: idx is {idx!r}, expected a whole number from 1")
    if idx > len(shots):
        raise DataError(f"{where}: idx is {idx}, and {few_shots} has scored answers for {len(shots)} cases only")
    prompt, query, reference = (_text(row, key, where) for key in ("prompt", "query", "answer"))
    return LongBenchChatCase(idx, prompt, query, reference, shots[idx - 1])


def _shots(group: Any, where: str) -> tuple[Shot, Shot, Shot]:
    if not isinstance(group, list) or len(group) != SHOTS or not all(isinstance(each, Mapping) for each in group):
        raise DataError(f'{where}: expected a list of {SHOTS} objects like {{"answer": "…", "score": 7}}')
    first, second, third = (_shot(each, where) for each in group)
    return first, second, third


def _shot(row: Mapping[str, Any], where: str) -> Shot:
    score = row.get("score")
    if isinstance(score, bool) or not isinstance(score, int | float | str) or not str(score).strip():
        raise DataError(f"{where}: a score is {score!r}, expected a number from 1 to 10")
    return Shot(_text(row, "answer", where), str(score))


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: {key} is {value!r}, expected a text")
    return value


def _listed(path: Path) -> list[Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(found, list) or not found:
        raise DataError(f"{path} must hold a JSON list with an entry for each case")
    return found
