"""How many short instructions, without a document, a model answers right: what training on long ones may cost.

    {"query": "Which is more: 13, 48?", "answer": "48."}
    {"query": "…", "answers": ["48.", "48 of them."]}      any of them

The built-in ones are those held out of `train.short`'s. An answer is right where it is the expected one but for case,
white space and the marks at its end.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longreward.errors import ConfigError, DataError
from longreward.evaluation.bootstrap import difference
from longreward.evaluation.config import BUILTIN, EvaluateConfig, ShortMeasureConfig
from longreward.evaluation.measuring import Role
from longreward.jsonl import RowError
from longreward.records import Example, Response
from longreward.sources.preferences import SHORT


@dataclass(frozen=True)
class ShortSet:
    """The instructions as examples without a document, and what is right for each."""

    examples: tuple[Example, ...]
    answers: Mapping[str, tuple[str, ...]]
    kinds: Mapping[str, str]
    """Of the built-in ones: what they ask for."""

    def is_right(self, response: Response) -> bool:
        """Whether it says one of the answers and nothing else."""
        return plain(response.text) in {plain(answer) for answer in self.answers[response.example_id]}


@dataclass(frozen=True)
class ShortResult:
    """One model's answers against the set."""

    rows: tuple[dict[str, Any], ...]
    right: Mapping[str, float]
    """By example: 1 or 0."""


def short_set(config: ShortMeasureConfig, root: Path = Path()) -> ShortSet | None:
    """None where none are asked; ConfigError for a file outside data/raw, DataError where one cannot be used."""
    if config.source is None:
        return None
    named = _built_in(config.count) if config.source == BUILTIN else _read(config.source, config.count, root)
    ids = [f"{SHORT}{number}" for number in range(len(named))]
    return ShortSet(
        tuple(
            Example(id=id_, document_id=id_, context="", query=query)
            for id_, (query, *_) in zip(ids, named, strict=True)
        ),
        {id_: answers for id_, (_, answers, _) in zip(ids, named, strict=True)},
        {id_: kind for id_, (_, _, kind) in zip(ids, named, strict=True) if kind},
    )


Asked = tuple[str, tuple[str, ...], str]
"""The query, its answers, and the kind where it has one."""


def _built_in(count: int) -> list[Asked]:
    from longreward.corpus.short import short_items

    return [(item.query, (item.answer, *item.accepted), item.kind) for item in short_items(count, "heldout")]


def _read(name: str, count: int, root: Path) -> list[Asked]:
    from longreward.sources.files import find_files
    from longreward.sources.pinning import RAW

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


def plain(text: str) -> str:
    """The text without what does not count.

    >>> plain("  Amber,  and GOLD. ")
    'amber, and gold'
    """
    return " ".join(text.lower().split()).rstrip(" .!?。！？")


def held_against(asked: ShortSet, role: Role, responses: Iterable[Response]) -> ShortResult:
    """Each answer with whether it is right."""
    rows = []
    right: dict[str, float] = {}
    for one in responses:
        right[one.example_id] = float(asked.is_right(one))
        told = {"model": role, "idx": one.id, "kind": asked.kinds.get(one.example_id), "query": one.query}
        expected = asked.answers[one.example_id][0]
        rows.append({**told, "answer": one.text, "expected": expected, "right": bool(right[one.example_id])})
    return ShortResult(tuple(rows), right)


def short_figures(config: EvaluateConfig, results: Mapping[Role, ShortResult]) -> dict[str, float]:
    """The share right of each model, by kind too, and the difference that training made, with its interval."""
    figures: dict[str, float] = {}
    for role, result in results.items():
        figures[f"short/right/{role}"] = sum(result.right.values()) / len(result.right)
        by_kind: dict[str, list[bool]] = {}
        for row in result.rows:
            if row["kind"]:
                by_kind.setdefault(row["kind"], []).append(row["right"])
        figures |= {f"short/right/{role}/{kind}": sum(told) / len(told) for kind, told in by_kind.items()}
    change = difference(
        results["sft"].right.items(),
        results["dpo"].right.items(),
        resamples=config.bootstrap_resamples,
        confidence=config.confidence,
        seed=config.seed,
    )
    if change is not None:
        name = "difference/short/right"
        figures |= {name: change.value, f"{name}_low": change.low, f"{name}_high": change.high}
    return figures
