"""What comes into being on the way from a file to a question with its answer.

Context  {"document": "lease.pdf", "part": 0, "text": "…", "language": "en"}
Draft    a question on it of some kind, with its answer and how faithful that is
Dropped  a document, context, question or answer that is left out, and why
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from longreward.data.formats import document_id
from longreward.errors import DataError
from longreward.synthesis.config import TASKS, Task
from longreward.utils.jsonl import Row
from longreward.utils.language import Language

DropReason = Literal[
    "unreadable_document",
    "empty_document",
    "duplicate_document",
    "short",
    "no_question",
    "duplicate_question",
    "language",
    "unanswerable",
    "no_answer",
    "long_answer",
    "ungrounded",
    "unscored",
]


@dataclass(frozen=True)
class Context:
    """A document, or a part of one that is too long: `part` counts from 0."""

    document: str
    part: int
    text: str
    language: Language


@dataclass(frozen=True)
class Draft:
    """A question with its answer; `faithfulness` is None until it was judged."""

    context: Context
    task: Task
    query: str
    answer: str
    writer: str
    prompt_hashes: tuple[str, str]
    faithfulness: float | None = None

    def row(self) -> Row:
        """A line of questions.jsonl: an example in the published format, and where it comes from."""
        return {
            "idx": document_id(f"{self.context.document} {self.context.part} {self.query}"),
            "query": self.query,
            "answer": self.answer,
            "context": self.context.text,
            "document": self.context.document,
            "part": self.context.part,
            "task": self.task,
            "language": self.context.language,
            "faithfulness": self.faithfulness,
            "writer": self.writer,
            "prompt_hashes": self.prompt_hashes,
        }


@dataclass(frozen=True)
class Dropped:
    """Something that is left out."""

    document: str
    why: DropReason
    reason: str
    part: int | None = None
    task: Task | None = None
    query: str | None = None
    answer: str | None = None

    def because(self, why: DropReason, reason: str, answer: str | None = None) -> "Dropped":
        """The same, left out for another reason."""
        return replace(self, why=why, reason=reason, answer=answer)

    def row(self) -> Row:
        """A line of rejected.jsonl."""
        return {name: value for name, value in vars(self).items() if value is not None}


Outcome: TypeAlias = Draft | Dropped


@dataclass
class SynthesisReport:
    """How much of what was made, and what was left out for which reason."""

    documents: set[str] = field(default_factory=set)
    contexts: set[tuple[str, int]] = field(default_factory=set)
    kept: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    first: list[Dropped] = field(default_factory=list)

    def count(self, outcome: Outcome) -> None:
        """Takes in one."""
        if isinstance(outcome, Dropped):
            self.dropped[outcome.why] += 1
            if len(self.first) < SHOWN:
                self.first.append(outcome)
            return
        self.documents.add(outcome.context.document)
        self.contexts.add((outcome.context.document, outcome.context.part))
        self.kept[outcome.task] += 1

    def figures(self) -> dict[str, float]:
        """Flat, as metrics."""
        figures = {"questions": self.kept.total(), "documents": len(self.documents), "contexts": len(self.contexts)}
        figures |= {f"questions/{task}": self.kept[task] for task in TASKS if self.kept[task]}
        figures |= {"dropped": self.dropped.total()}
        figures |= {f"dropped/{why}": count for why, count in sorted(self.dropped.items())}
        return {name: float(value) for name, value in figures.items()}

    def refuse_nothing(self, *, source: str) -> None:
        """Raises DataError where there is no question at all."""
        if not self.kept:
            listed = "\n".join(f"  {each.document}: {each.reason}" for each in self.first)
            raise DataError(
                f"synthesize.documents: {source} gave no question; {self.dropped.total()} drops, the first:\n{listed}"
            )


SHOWN = 10  # drops that an error names; rejected.jsonl has all
