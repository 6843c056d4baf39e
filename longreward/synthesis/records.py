"""Records of the synthesis, from a document to a question with its answer.

Context  {"document": "lease.pdf", "part": 0, "text": "…", "language": "en"}
Draft    a question on a context with its answer and the faithfulness of that answer
Dropped  a document, context, question or answer that is left out, and the reason
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from longreward.data.formats import document_id
from longreward.errors import DataError
from longreward.synthesis.config import TASKS, Task
from longreward.utils.jsonl import Row
from longreward.utils.language import Language

DropKind = Literal[
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
LISTED_DROPS = 10  # in an error message; rejected.jsonl contains all


@dataclass(frozen=True)
class Dropped:
    """A document, context, question or answer that is left out."""

    document: str
    kind: DropKind
    reason: str
    part: int | None = None
    task: Task | None = None
    query: str | None = None
    answer: str | None = None

    def to_row(self) -> Row:
        """Return a line of rejected.jsonl."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Context:
    """A document, or a part of a long one; `part` counts from 0."""

    document: str
    part: int
    text: str
    language: Language

    def drop(
        self, kind: DropKind, reason: str, *, task: Task, query: str | None = None, answer: str | None = None
    ) -> Dropped:
        """Return a dropped question or answer on this context."""
        return Dropped(self.document, kind, reason, part=self.part, task=task, query=query, answer=answer)


@dataclass(frozen=True)
class Draft:
    """A question with its answer; `faithfulness` is None until the answer is scored."""

    context: Context
    task: Task
    query: str
    answer: str
    writer: str
    prompt_hashes: tuple[str, str]
    faithfulness: float | None = None

    def to_row(self) -> Row:
        """Return a line of questions.jsonl: an example in the published format, and its origin."""
        return {
            # Derived from the content, so that another run gives the same question the same id.
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


Outcome: TypeAlias = Draft | Dropped


@dataclass
class SynthesisReport:
    """Counts of kept questions and of drops by kind."""

    documents: set[str] = field(default_factory=set)
    contexts: set[tuple[str, int]] = field(default_factory=set)
    kept: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    first_dropped: list[Dropped] = field(default_factory=list)

    def count(self, outcome: Outcome) -> None:
        """Add an outcome."""
        if isinstance(outcome, Dropped):
            self.dropped[outcome.kind] += 1
            if len(self.first_dropped) < LISTED_DROPS:
                self.first_dropped.append(outcome)
            return
        self.documents.add(outcome.context.document)
        self.contexts.add((outcome.context.document, outcome.context.part))
        self.kept[outcome.task] += 1

    def metrics(self) -> dict[str, float]:
        """Return the counts as metrics."""
        metrics = {"questions": self.kept.total(), "documents": len(self.documents), "contexts": len(self.contexts)}
        metrics |= {f"questions/{task}": self.kept[task] for task in TASKS if self.kept[task]}
        metrics |= {"dropped": self.dropped.total()}
        metrics |= {f"dropped/{kind}": count for kind, count in sorted(self.dropped.items())}
        return {name: float(value) for name, value in metrics.items()}

    def check_not_empty(self, *, source: str) -> None:
        """Raise DataError if no question was kept."""
        if not self.kept:
            listed = "\n".join(f"  {dropped.document}: {dropped.reason}" for dropped in self.first_dropped)
            raise DataError(
                f"synthesize.documents: {source} gave no question; {self.dropped.total()} drops, the first:\n{listed}"
            )
