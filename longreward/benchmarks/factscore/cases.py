"""The questions, in the format of `sft.jsonl`.

{"idx": "11", "context": "…", "query": "…"}      "category" may stand beside them; other fields are not looked at
"""

from dataclasses import dataclass
from pathlib import Path

from longreward.errors import DataError
from longreward.utils.jsonl import Row, RowError, read_records


@dataclass(frozen=True)
class FactCase:
    """One question about a long context, which is also what its answers' facts are checked against."""

    id: str
    context: str
    query: str
    category: str = "all"

    @property
    def prompt(self) -> str:
        """What the model is asked."""
        return f"{self.context}\n\n{self.query}"


def read_cases(path: Path) -> tuple[FactCase, ...]:
    """All cases in their order; DataError where a row is not as above, or two have one idx."""
    cases = tuple(read_records(path, _case))
    seen: set[str] = set()
    for case in cases:
        if case.id in seen:
            raise DataError(f"{path}: two questions have the idx {case.id!r}")
        seen.add(case.id)
    return cases


def _case(row: Row) -> FactCase:
    for key in ("context", "query"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise RowError(f"{key} is {str(row.get(key))[:80]!r}, expected a text")
    if not isinstance(row.get("idx"), str | int):
        raise RowError(f"idx is {row.get('idx')!r}, expected a name or a number")
    return FactCase(str(row["idx"]), row["context"], row["query"], str(row.get("category") or "all"))
