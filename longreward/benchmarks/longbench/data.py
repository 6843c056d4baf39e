"""The records of LongBench's sets.

    qasper.jsonl          {"input": "What is …?", "context": "…", "answers": ["…"], "dataset": "qasper", …}
    dataset2prompt.json   {"qasper": "{context}\\n\\n{input}", …}

The template of a set is filled with a record. LongReward's evaluation, which judges the first three classes, splits the
result: the text after its last blank line is the query, the text before it the context; the model's prompt is both with
a blank line between.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from longreward.benchmarks.longbench.sets import JUDGED_SETS, SetName
from longreward.benchmarks.published_formats import parse_text, parse_texts, read_json
from longreward.benchmarks.types import DocumentCase, scan_cases
from longreward.errors import DataError
from longreward.utils.jsonl import IndexedJsonl, Row, RowError

_SLOT = re.compile(r"\{(?:context|input)\}")


@dataclass(frozen=True)
class LongBenchRecord(DocumentCase):
    """What the cases of both protocols have in common."""

    dataset: SetName
    number: int  # in its file, from 1

    @property
    def id(self) -> str:
        return f"{self.dataset}/{self.number}"

    @property
    def category(self) -> str:
        return self.dataset


R = TypeVar("R", bound=LongBenchRecord)


@dataclass(frozen=True)
class LongBenchCase(LongBenchRecord):
    """One record of one set."""

    query: str
    answers: tuple[str, ...]  # references; the best match counts

    @property
    def prompt(self) -> str:
        """The prompt for the model."""
        return f"{self.context}\n\n{self.query}"


def read_cases(folder: Path, templates: Path, sets: Sequence[SetName] | None = None) -> tuple[LongBenchCase, ...]:
    """Read the records of `sets`, by default of all judged sets whose `<set>.jsonl` is in `folder`.

    Raises DataError for a missing or malformed file.
    """
    cases: list[LongBenchCase] = []
    for name in present_sets(folder, JUDGED_SETS) if sets is None else sets:
        template = read_template(templates, name)
        if "\n\n" not in template:
            raise DataError(
                f"{templates}: the template of {name} is {template!r}, expected a blank line before the query"
            )
        cases += read_numbered(folder / f"{name}.jsonl", partial(_parse_case, name=name, template=template))
    return tuple(cases)


def read_numbered(path: Path, parse: Callable[[Row], R]) -> Iterator[R]:
    """Yield the records of a file, parsed without their numbers, with them. Raises DataError at the first bad row."""
    for number, record in enumerate(scan_cases(IndexedJsonl(path, parse)), start=1):
        yield replace(record, number=number)


def present_sets(folder: Path, sets: Sequence[SetName], suffix: str = "") -> list[SetName]:
    """Return those of the sets whose `<set><suffix>.jsonl` is in `folder`. Raises DataError if there is none."""
    names = [name for name in sets if (folder / f"{name}{suffix}.jsonl").is_file()]
    if not names:
        files = ", ".join(f"{name}{suffix}.jsonl" for name in sets)
        raise DataError(f"{folder} contains none of LongBench's files ({files})")
    return names


def read_template(templates: Path, name: SetName) -> str:
    """Return the prompt template of a set. Raises DataError if there is none, or if it has no {context}."""
    rows = read_json(templates)
    template = rows.get(name) if isinstance(rows, Mapping) else None
    if not isinstance(template, str) or "{context}" not in template:
        raise DataError(f"{templates}: the template of {name} is {template!r}, expected a text with {{context}}")
    return template


def substitute_slots(template: str, *, context: str, query: str) -> str:
    """Return the template with `{context}` and `{input}` filled in one pass, so that `{input}` in a document stays."""
    values = {"{context}": context, "{input}": query}
    return _SLOT.sub(lambda match: values[match.group()], template)


def fill_template(template: str, *, context: str, query: str) -> tuple[str, str]:
    """Return context and query of the filled template: the texts before and after its last blank line.

    >>> fill_template("News:\\n{context}\\n\\nSum it up.", context="One.\\n\\nTwo.", query="")
    ('News:\\nOne.\\n\\nTwo.', 'Sum it up.')
    """
    before, _, after = substitute_slots(template, context=context, query=query).rpartition("\n\n")
    return before, after.strip()


def _parse_case(row: Row, *, name: SetName, template: str) -> LongBenchCase:
    """Parse one record, without its number."""
    if row.get("dataset", name) != name:
        raise RowError(f"dataset is {row['dataset']!r} in the file of {name}")
    context, query = fill_template(template, context=parse_text(row, "context"), query=parse_text(row, "input"))
    if not query:
        raise RowError("the prompt has no query: nothing follows its last blank line")
    return LongBenchCase(name, 0, query, parse_texts(row, "answers"), read_context=lambda: context)
