"""The twelve sets: to which class each belongs, how its answers are graded, measured and limited."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from longreward.errors import ConfigError, DataError
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
Metric = Literal["f1", "rouge_l"]
Grading = Literal["qa", "summary"]
Limits = Literal["longreward", "longbench"]


@dataclass(frozen=True)
class Set:
    """One set of LongBench. `tokens` is the longest answer that LongBench's own code lets a model give."""

    group: ClassName
    metric: Metric
    chinese: bool
    tokens: int

    @property
    def grading(self) -> Grading:
        """As an answer, 1 to 3, or as a summary, 1 to 5."""
        return "summary" if self.group == "summarization" else "qa"


SETS: dict[SetName, Set] = {
    "narrativeqa": Set("single_doc_qa", "f1", False, 128),
    "qasper": Set("single_doc_qa", "f1", False, 128),
    "multifieldqa_en": Set("single_doc_qa", "f1", False, 64),
    "multifieldqa_zh": Set("single_doc_qa", "f1", True, 64),
    "hotpotqa": Set("multi_doc_qa", "f1", False, 32),
    "2wikimqa": Set("multi_doc_qa", "f1", False, 32),
    "musique": Set("multi_doc_qa", "f1", False, 32),
    "dureader": Set("multi_doc_qa", "rouge_l", True, 128),
    "gov_report": Set("summarization", "rouge_l", False, 512),
    "qmsum": Set("summarization", "rouge_l", False, 512),
    "multi_news": Set("summarization", "rouge_l", False, 512),
    "vcsum": Set("summarization", "rouge_l", True, 512),
}
CLASSES: tuple[ClassName, ...] = get_args(ClassName)
HIGHEST: dict[Grading, int] = {"qa": 3, "summary": 5}
"""The best rating; the worst is 1."""
MAX_NEW_TOKENS = 1024  # LongReward's, for every set


# LongBench's records, and the prompts that are made of them.
#
#     qasper.jsonl   {"input": "What is …?", "context": "…", "answers": ["…"], "length": 3921, "dataset": "qasper",
#                     "language": "en", "all_classes": null, "_id": "…"}
#     dataset2prompt.json   {"qasper": "{context}\n\n{input}", …}
#
# A set's template is filled with the record; what follows its last blank line is the query, what stands before it the
# context. The model is asked the two with a blank line between.


@dataclass(frozen=True)
class LongBenchCase:
    """One record of one set."""

    dataset: SetName
    place: int  # in its file, from 1
    context: str
    query: str
    answers: tuple[str, ...]  # each a reference; the best counts

    @property
    def id(self) -> str:
        return f"{self.dataset}/{self.place}"

    @property
    def category(self) -> str:
        return self.dataset

    @property
    def prompt(self) -> str:
        """What the model is asked."""
        return f"{self.context}\n\n{self.query}"


def load_cases(folder: Path, templates: Path, sets: Sequence[SetName] | None) -> tuple[LongBenchCase, ...]:
    """The records of `<set>.jsonl` in `folder`: of `sets`, or of all whose file is there, in the order of `SETS`.

    DataError where a file or a template is not there or not as above, ConfigError for a name that is no set's.
    """
    _check_names(sets)
    wanted = [name for name in SETS if (name in sets if sets is not None else (folder / f"{name}.jsonl").is_file())]
    if not wanted:
        raise DataError(f"{folder} holds none of LongBench's files ({', '.join(f'{name}.jsonl' for name in SETS)})")
    formats = _formats(templates, wanted)
    return tuple(case for name in wanted for case in _records(folder / f"{name}.jsonl", name, formats[name]))


def split(template: str, *, context: str, query: str) -> tuple[str, str]:
    """Context and query as the filled template has them before and behind its last blank line.

    Both slots are filled in one pass: a document that holds `{input}` keeps it.

    >>> split("News:\\n{context}\\n\\nSum it up.", context="One.\\n\\nTwo.", query="")
    ('News:\\nOne.\\n\\nTwo.', 'Sum it up.')
    """
    values = {"{context}": context, "{input}": query}
    filled = _SLOT.sub(lambda slot: values[slot.group()], template)
    before, _, behind = filled.rpartition("\n\n")
    return before, behind.strip()


def _records(path: Path, name: SetName, template: str) -> list[LongBenchCase]:
    place = 0

    def convert(row: Row) -> LongBenchCase:
        nonlocal place
        place += 1
        return _case(row, name, place, template)

    return list(read_records(path, convert))


def _case(row: Row, name: SetName, place: int, template: str) -> LongBenchCase:
    for key in ("input", "context"):
        if not isinstance(row.get(key), str):
            raise RowError(f"{key} is {row.get(key)!r}, expected a text")
    answers = row.get("answers")
    if not isinstance(answers, list) or not answers or not all(isinstance(each, str) for each in answers):
        raise RowError(f"answers is {answers!r}, expected a list of one text or more")
    if row.get("dataset", name) != name:
        raise RowError(f"dataset is {row['dataset']!r} in the file of {name}")
    context, query = split(template, context=row["context"], query=row["input"])
    if not query:
        raise RowError("nothing follows the last blank line of its prompt, so that it has no query")
    return LongBenchCase(name, place, context, query, tuple(answers))


def _formats(path: Path, wanted: Sequence[SetName]) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"LongBench's templates {path} cannot be read as JSON: {error}") from error
    for name in wanted:
        template = found.get(name) if isinstance(found, Mapping) else None
        if not isinstance(template, str) or "{context}" not in template or "\n\n" not in template:
            raise DataError(
                f"{path}: the template of {name} is {template!r}, expected a text with {{context}} and a blank line "
                "before the query"
            )
    return dict(found)


def _check_names(sets: Sequence[str] | None) -> None:
    unknown = [name for name in sets or () if name not in SETS]
    if unknown:
        raise ConfigError(f"LongBench has no set {', '.join(unknown)}; name some of {', '.join(SETS)}")


_SLOT = re.compile(r"\{(?:context|input)\}")
