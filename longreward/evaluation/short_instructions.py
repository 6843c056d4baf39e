"""How many short instructions, without a document, a model answers right: what training on long ones may cost.

    {"query": "Which is more: 13, 48?", "answer": "48."}
    {"query": "…", "answers": ["48.", "48 of them."]}      any of them

The built-in ones are those held out of the trainings' own. An answer is right where it is the expected one but for
case, white space and the marks at its end.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longreward.data.short_instructions import short_example
from longreward.errors import ConfigError, DataError
from longreward.evaluation.config import BUILTIN, ShortMeasureConfig
from longreward.evaluation.measures import GREEDY, AnswerMeasures
from longreward.records import Example, Response, Role
from longreward.utils.jsonl import RowError


@dataclass(frozen=True)
class ShortInstructionSet:
    """The instructions as examples without a document, and what is right for each."""

    examples: tuple[Example, ...]
    answers: Mapping[str, tuple[str, ...]]
    kinds: Mapping[str, str]
    """Of the built-in ones: what they ask for."""

    def is_right(self, response: Response) -> bool:
        """Whether it says one of the answers and nothing else."""
        return normalize(response.text) in {normalize(answer) for answer in self.answers[response.example_id]}


def load_short_instructions(config: ShortMeasureConfig, root: Path = Path()) -> ShortInstructionSet | None:
    """None where none are asked; ConfigError for a file outside data/raw, DataError where one cannot be used."""
    if config.source is None:
        return None
    named = _built_in(config.count) if config.source == BUILTIN else _read(config.source, config.count, root)
    examples = tuple(short_example(number, query=query) for number, (query, *_) in enumerate(named))
    return ShortInstructionSet(
        examples,
        {one.id: answers for one, (_, answers, _) in zip(examples, named, strict=True)},
        {one.id: kind for one, (_, _, kind) in zip(examples, named, strict=True) if kind},
    )


Asked = tuple[str, tuple[str, ...], str]
"""The query, its answers, and the kind where it has one."""


def _built_in(count: int) -> list[Asked]:
    from longreward.builtin.short_instructions import short_items

    return [(item.query, (item.answer, *item.accepted), item.kind) for item in short_items(count, "heldout")]


def _read(name: str, count: int, root: Path) -> list[Asked]:
    from longreward.data.file_source import find_files
    from longreward.data.source import RAW

    if not Path(name).is_relative_to(RAW):
        raise ConfigError(f"evaluate.short.source is {name}: put it under {RAW}, where its versions are kept")
    found: list[Asked] = []
    source = find_files(root, name)
    for place, row in source.rows():
        if len(found) == count:
            break
        if isinstance(row, RowError):
            raise DataError(f"{place}: {row}")
        query, answers = row.get("query"), row.get("answers", [row["answer"]] if "answer" in row else [])
        given = [query, *answers] if isinstance(answers, list) else []
        texts = [text for text in given if isinstance(text, str) and text.strip()]
        if len(given) < 2 or len(texts) < len(given):
            raise DataError(f'{place}: expected {{"query": …, "answer": …}}, or a list of answers; all of them texts')
        found.append((texts[0], tuple(texts[1:]), ""))
    return found


def normalize(text: str) -> str:
    """The text without what does not count.

    >>> plain("  Amber,  and GOLD. ")
    'amber, and gold'
    """
    return " ".join(text.lower().split()).rstrip(" .!?。！？")


def measure_short(asked: ShortInstructionSet, role: Role, responses: Iterable[Response]) -> Iterator[AnswerMeasures]:
    """Whether each greedy answer is right: 1 or 0."""
    for one in responses:
        yield AnswerMeasures(role, GREEDY, one.example_id, one, {"short": float(asked.is_right(one))})


def short_answer_rows(asked: ShortInstructionSet, measured: Iterable[AnswerMeasures]) -> Iterator[dict[str, Any]]:
    """Each answer with what was expected."""
    for one in measured:
        name = one.response.example_id
        told = {"model": one.role, "idx": one.response.id, "kind": asked.kinds.get(name), "query": one.response.query}
        right = bool(one.values["short"])
        yield {**told, "answer": one.response.text, "expected": asked.answers[name][0], "right": right}


def short_accuracy_by_kind(asked: ShortInstructionSet, measured: Iterable[AnswerMeasures]) -> dict[str, float]:
    """The share that each model answers right of each kind: `short/first/dpo`."""
    taken: dict[str, list[float]] = {}
    for one in measured:
        if kind := asked.kinds.get(one.response.example_id):
            taken.setdefault(f"short/{kind}/{one.role}", []).append(one.values["short"])
    return {name: sum(values) / len(values) for name, values in taken.items()}
