"""Accuracy on short instructions without a document, which training on long prompts may reduce.

    {"query": "Which is more: 13, 48?", "answer": "48."}
    {"query": "…", "answers": ["48.", "48 of them."]}      any of these is correct

The built-in instructions are held out from those of `train.short`. A response is correct if it equals an answer up to
case, white space and punctuation at the end; with `match: contains`, if it contains one in this sense and no known
wrong answer.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from longreward.data.preferences import short_example
from longreward.errors import ConfigError, DataError
from longreward.evaluation.config import BUILTIN, ShortMeasureConfig
from longreward.evaluation.measures import GREEDY, AnswerMeasures
from longreward.records import Example, Response, Role
from longreward.utils.jsonl import RowError


@dataclass(frozen=True)
class ShortInstruction:
    """One instruction with its correct answers; built-in ones have a kind."""

    example: Example
    answers: tuple[str, ...]
    kind: str = ""
    wrong: str | None = None


@dataclass(frozen=True)
class ShortInstructionSet:
    """All instructions by the ids of their examples."""

    instructions: Mapping[str, ShortInstruction]
    match: Literal["equal", "contains"] = "equal"

    @property
    def examples(self) -> tuple[Example, ...]:
        """The instructions as examples without a document."""
        return tuple(instruction.example for instruction in self.instructions.values())

    def is_correct(self, response: Response) -> bool:
        """Whether the response is one of the answers, or contains one and not the wrong one."""
        instruction, text = self.instructions[response.example_id], normalize(response.text)
        answers = {normalize(answer) for answer in instruction.answers}
        if self.match == "equal":
            return text in answers
        if not any(_contains(text, answer) for answer in answers):
            return False
        # A wrong answer may be a part of the right one: "quiet compass" of "quiet compass, quiet compass".
        wrong = normalize(instruction.wrong or "")
        return not wrong or any(_contains(answer, wrong) for answer in answers) or not _contains(text, wrong)


def load_short_instructions(config: ShortMeasureConfig, root: Path = Path()) -> ShortInstructionSet | None:
    """Load the configured instructions; None if there are none.

    Raises ConfigError for a file outside data/raw, DataError for a malformed row.
    """
    if config.source is None:
        return None
    from longreward.builtin.short_instructions import short_items
    from longreward.data.file_source import find_files
    from longreward.data.source import RAW

    instructions: list[ShortInstruction] = []
    if config.source == BUILTIN:
        for number, item in enumerate(short_items(config.count, "heldout")):
            example = short_example(number, query=item.query)
            instructions.append(ShortInstruction(example, (item.answer, *item.accepted), item.kind, item.wrong))
        return ShortInstructionSet({instruction.example.id: instruction for instruction in instructions}, config.match)
    if not Path(config.source).is_relative_to(RAW):
        raise ConfigError(f"evaluate.short.source is {config.source}: move it to {RAW}, where its versions are kept")
    for location, row in islice(find_files(root, config.source).rows(), config.count):
        if isinstance(row, RowError):
            raise DataError(f"{location}: {row}")
        query, answers = row.get("query"), row.get("answers", [row["answer"]] if "answer" in row else [])
        texts = [query, *answers] if isinstance(answers, list) else []
        if len(texts) < 2 or not all(isinstance(text, str) and text.strip() for text in texts):
            raise DataError(f'{location}: expected {{"query": "…", "answer": "…"}} or a list of texts as "answers"')
        instructions.append(ShortInstruction(short_example(len(instructions), query=texts[0]), tuple(texts[1:])))
    return ShortInstructionSet({instruction.example.id: instruction for instruction in instructions}, config.match)


def normalize(text: str) -> str:
    """Remove the differences that do not count.

    >>> normalize("  Amber,  and GOLD. ")
    'amber, and gold'
    """
    return " ".join(text.lower().split()).rstrip(" .!?。！？")


def _contains(text: str, part: str) -> bool:
    """Whether a normalized text contains another one as whole words."""
    return re.search(rf"(?<!\w){re.escape(part)}(?!\w)", text) is not None


def measure_short(
    instructions: ShortInstructionSet, role: Role, responses: Iterable[Response]
) -> Iterator[AnswerMeasures]:
    """Yield 1 or 0 for each greedy response."""
    for response in responses:
        accuracy = float(instructions.is_correct(response))
        yield AnswerMeasures(role, GREEDY, response.example_id, response, {"short": accuracy})


def short_answer_rows(
    instructions: ShortInstructionSet, measured: Iterable[AnswerMeasures]
) -> Iterator[dict[str, Any]]:
    """Yield a row per response with the expected answer."""
    for answer in measured:
        instruction = instructions.instructions[answer.response.example_id]
        yield {
            "model": answer.role,
            "idx": answer.response.id,
            "kind": instruction.kind or None,
            "query": answer.response.query,
            "answer": answer.response.text,
            "expected": instruction.answers[0],
            "right": bool(answer.values["short"]),
        }


def short_accuracy_by_kind(instructions: ShortInstructionSet, measured: Iterable[AnswerMeasures]) -> dict[str, float]:
    """Return the accuracy of each model on each kind of instruction: `short/first/dpo`."""
    values: dict[str, list[float]] = defaultdict(list)
    for answer in measured:
        # Instructions from a file have no kind.
        if kind := instructions.instructions[answer.response.example_id].kind:
            values[f"short/{kind}/{answer.role}"].append(answer.values["short"])
    return {name: fmean(group) for name, group in values.items()}
