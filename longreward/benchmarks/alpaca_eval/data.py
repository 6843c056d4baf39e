"""The instructions with the baseline's answers, as `alpaca_eval_gpt4_baseline.json` has them.

[{"dataset": "helpful_base", "instruction": "…", "output": "…", "generator": "gpt4_1106_preview"}, …]
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longreward.errors import DataError


@dataclass(frozen=True)
class AlpacaCase:
    """One instruction."""

    index: int  # its place in the file, from 0, by which `df_gamed.csv` names it
    instruction: str
    output: str  # the baseline's
    generator: str  # the baseline's name
    dataset: str

    @property
    def id(self) -> str:
        return str(self.index)

    @property
    def category(self) -> str:
        return self.dataset


def read_cases(path: Path) -> tuple[AlpacaCase, ...]:
    """All cases in their order; DataError where the file or one of them is not as above."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}); fetch it anew") from error
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{path} holds no list of instructions with the baseline's outputs; fetch it anew")
    cases = tuple(_case(path, place, row) for place, row in enumerate(rows))
    generators = {case.generator for case in cases}
    if len(generators) > 1:
        raise DataError(f"{path} has outputs of {len(generators)} generators ({', '.join(sorted(generators)[:3])}, …)")
    seen: dict[str, int] = {}
    for case in cases:
        if (first := seen.setdefault(case.instruction, case.index)) != case.index:
            raise DataError(f"{path}, row {case.index}: the instruction of row {first} once more")
    return cases


def _case(path: Path, place: int, row: Any) -> AlpacaCase:
    for key in ("instruction", "output", "generator"):
        if not isinstance(row, dict) or not isinstance(row.get(key), str):
            shown = row.get(key) if isinstance(row, dict) else row
            raise DataError(f"{path}, row {place}: {key} is {shown!r}, expected a text")
    return AlpacaCase(place, row["instruction"], row["output"], row["generator"], str(row.get("dataset") or "unknown"))
