"""The instructions with the baseline's answers, from `alpaca_eval_gpt4_baseline.json`.

[{"dataset": "helpful_base", "instruction": "…", "output": "…", "generator": "gpt4_1106_preview"}, …]
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longreward.benchmarks.published_formats import read_json_list
from longreward.errors import DataError


@dataclass(frozen=True)
class AlpacaCase:
    """One instruction with the baseline's answer."""

    index: int  # position in the file from 0, by which `df_gamed.csv` refers to it
    instruction: str
    output: str  # the baseline's answer
    generator: str  # the baseline's name
    dataset: str

    @property
    def id(self) -> str:
        return str(self.index)

    @property
    def category(self) -> str:
        return self.dataset


def read_cases(path: Path) -> tuple[AlpacaCase, ...]:
    """Read all instructions, in order. Raises DataError for malformed rows, duplicates or several generators."""
    cases: dict[str, AlpacaCase] = {}
    for index, row in enumerate(read_json_list(path)):
        case = _parse_case(path, index, row)
        if case.instruction in cases:
            raise DataError(f"{path}, row {index}: same instruction as row {cases[case.instruction].index}")
        cases[case.instruction] = case
    generators = sorted({case.generator for case in cases.values()})
    if len(generators) > 1:
        raise DataError(f"{path} has outputs of {len(generators)} generators ({', '.join(generators[:3])}, …)")
    return tuple(cases.values())


def _parse_case(path: Path, index: int, row: Any) -> AlpacaCase:
    for key in ("instruction", "output", "generator"):
        if not isinstance(row, dict) or not isinstance(row.get(key), str):
            value = row.get(key) if isinstance(row, dict) else row
            raise DataError(f"{path}, row {index}: {key} is {value!r}, expected a text")
    return AlpacaCase(index, row["instruction"], row["output"], row["generator"], str(row.get("dataset") or "unknown"))
