"""LongBench's twelve sets and their records.

    qasper.jsonl          {"input": "What is …?", "context": "…", "answers": ["…"], "dataset": "qasper", …}
    dataset2prompt.json   {"qasper": "{context}\\n\\n{input}", …}

The template of a set is filled with a record. The text after its last blank line is the query, the text before it the
context; the model's prompt is both with a blank line between.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from longreward.benchmarks.published_formats import parse_text, parse_texts, read_json
from longreward.errors import DataError
from longreward.utils.jsonl import Row, RowError, read_records

SetName = Literal[
    "narrativeqa",
    "qasper",
    "multifieldqa_en",
    "multifieldqa_zh",
    "hotpotqa",
    "2wikimqa",
    "musique",
    "dureader",
    "gov_report",
    "qmsum",
    "multi_news",
    "vcsum",
]
ClassName = Literal["single_doc_qa", "multi_doc_qa", "summarization"]
AutomaticMetric = Literal["f1", "rouge_l"]
Grading = Literal["qa", "summary"]


@dataclass(frozen=True)
class LongBenchSet:
    """One set of LongBench."""

    class_name: ClassName
    metric: AutomaticMetric
    chinese: bool

    @property
    def grading(self) -> Grading:
        """Whether the judge grades it as an answer (1 to 3) or as a summary (1 to 5)."""
        return "summary" if self.class_name == "summarization" else "qa"


SETS: dict[SetName, LongBenchSet] = {
    "narrativeqa": LongBenchSet("single_doc_qa", "f1", False),
    "qasper": LongBenchSet("single_doc_qa", "f1", False),
    "multifieldqa_en": LongBenchSet("single_doc_qa", "f1", False),
    "multifieldqa_zh": LongBenchSet("single_doc_qa", "f1", True),
    "hotpotqa": LongBenchSet("multi_doc_qa", "f1", False),
    "2wikimqa": LongBenchSet("multi_doc_qa", "f1", False),
    "musique": LongBenchSet("multi_doc_qa", "f1", False),
    "dureader": LongBenchSet("multi_doc_qa", "rouge_l", True),
    "gov_report": LongBenchSet("summarization", "rouge_l", False),
    "qmsum": LongBenchSet("summarization", "rouge_l", False),
    "multi_news": LongBenchSet("summarization", "rouge_l", False),
    "vcsum": LongBenchSet("summarization", "rouge_l", True),
}
CLASSES: tuple[ClassName, ...] = get_args(ClassName)
MAX_RATING: dict[Grading, int] = {"qa": 3, "summary": 5}  # the lowest rating is 1
_SLOT = re.compile(r"\{(?:context|input)\}")


@dataclass(frozen=True)
class LongBenchCase:
    """One record of one set."""

    dataset: SetName
    number: int  # in its file, from 1
    context: str
    query: str
    answers: tuple[str, ...]  # references; the best match counts

    @property
    def id(self) -> str:
        return f"{self.dataset}/{self.number}"

    @property
    def category(self) -> str:
        return self.dataset

    @property
    def prompt(self) -> str:
        """The prompt for the model."""
        return f"{self.context}\n\n{self.query}"


def read_cases(folder: Path, templates: Path) -> tuple[LongBenchCase, ...]:
    """Read the records of all sets whose `<set>.jsonl` is in `folder`, in the order of `SETS`. Raises DataError."""
    names = [name for name in SETS if (folder / f"{name}.jsonl").is_file()]
    if not names:
        files = ", ".join(f"{name}.jsonl" for name in SETS)
        raise DataError(f"{folder} contains none of LongBench's files ({files})")
    rows = read_json(templates)
    cases: list[LongBenchCase] = []
    for name in names:
        template = rows.get(name) if isinstance(rows, Mapping) else None
        if not isinstance(template, str) or "{context}" not in template or "\n\n" not in template:
            raise DataError(
                f"{templates}: the template of {name} is {template!r}, expected a text with {{context}} and a blank "
                "line before the query"
            )
        parsed = read_records(folder / f"{name}.jsonl", partial(_parse_case, name=name, template=template))
        cases += (replace(case, number=number) for number, case in enumerate(parsed, start=1))
    return tuple(cases)


def fill_template(template: str, *, context: str, query: str) -> tuple[str, str]:
    """Return context and query of the filled template: the texts before and after its last blank line.

    Both slots are filled in one pass, so that `{input}` in a document stays as it is.

    >>> fill_template("News:\\n{context}\\n\\nSum it up.", context="One.\\n\\nTwo.", query="")
    ('News:\\nOne.\\n\\nTwo.', 'Sum it up.')
    """
    values = {"{context}": context, "{input}": query}
    filled = _SLOT.sub(lambda match: values[match.group()], template)
    before, _, after = filled.rpartition("\n\n")
    return before, after.strip()


def _parse_case(row: Row, *, name: SetName, template: str) -> LongBenchCase:
    """Parse one record, without its number."""
    if row.get("dataset", name) != name:
        raise RowError(f"dataset is {row['dataset']!r} in the file of {name}")
    context, query = fill_template(template, context=parse_text(row, "context"), query=parse_text(row, "input"))
    if not query:
        raise RowError("the prompt has no query: nothing follows its last blank line")
    return LongBenchCase(name, 0, context, query, parse_texts(row, "answers"))
