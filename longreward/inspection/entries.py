"""What the evidence page shows of one prompt.

    PromptEntry
    ├── responses: ResponseEntry
    │   └── dimensions: DimensionEntry      score, judge's reply, cost
    │       └── statements: StatementEntry  support, evidence as spans of the document
    └── extracts: ExtractEntry              what completeness compared the response with

Spans count UTF-16 code units, as JavaScript does. Texts are the records' own: the page treats all of them as untrusted.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from longreward.judge.usage import PricesConfig
from longreward.records import (
    EQUAL_WEIGHTS,
    Bounds,
    Dimension,
    Evidence,
    Extraction,
    JudgeUsage,
    ScoredResponse,
    Statement,
    Verdict,
)

Span = tuple[int, int]
CostOf = Callable[[JudgeUsage], float | None]
"""Returns the cost of a judge's calls in the currency of the prices; None if the price is unknown."""
OFFLINE_PREFIX = "offline-"  # of the offline judge's name
QUERY_PREVIEW = 240  # characters of a query in the list of prompts
REASON_PREVIEW = 200


@dataclass(frozen=True)
class StatementEntry:
    """A statement of a response; `quotes` are evidence texts that do not occur in the document."""

    text: str
    support: float | None
    reply: str | None = None
    reason: str | None = None
    evidence: tuple[Span, ...] = ()
    quotes: tuple[str, ...] = ()
    votes: Mapping[str, float | None] = field(default_factory=dict)
    """The support by each judge of a panel."""
    weight: float = 1.0


@dataclass(frozen=True)
class DimensionEntry:
    """One score with the judge's reply behind it."""

    name: str
    score: float | None
    bounds: Bounds | None = None
    reason: str | None = None
    reply: str | None = None
    truncated: bool = False
    judge: str = ""
    prompt_hashes: tuple[str, ...] = ()
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    statements: tuple[StatementEntry, ...] = ()
    members: Mapping[str, float | None] = field(default_factory=dict)
    """The score by each judge of a panel."""


@dataclass(frozen=True)
class ResponseEntry:
    """A response; `value` is its reward, or its score on a benchmark."""

    id: str
    label: str
    text: str
    value: float | None
    bounds: Bounds | None = None
    tokens: int | None = None
    truncated: bool = False
    dimensions: tuple[DimensionEntry, ...] = ()
    measures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ExtractEntry:
    """Information that the judge extracted from a part of the document."""

    first_percent: int
    last_percent: int
    span: Span | None
    text: str | None
    reason: str | None = None


@dataclass(frozen=True)
class PromptEntry:
    """A prompt with its responses, best first.

    `left` and `right` are the ids of the two responses that are shown side by side: chosen and rejected, or the SFT
    model's and the trained model's. `margin` is their difference.
    """

    key: str
    """Identifies the entry on the page and in its address."""
    id: str
    query: str
    responses: tuple[ResponseEntry, ...]
    document: str | None = None
    """The text; the page stores equal ones once."""
    document_name: str = ""
    group: str = ""
    """The decoding or the benchmark."""
    answer: str | None = None
    max_value: float = 10.0
    """The highest value of a response."""
    left: str | None = None
    right: str | None = None
    is_pair: bool = False
    """Whether left and right are a chosen and a rejected response."""
    margin: float | None = None
    member_margins: Mapping[str, float] = field(default_factory=dict)
    """The margin by each judge of a panel."""
    disputed: bool = False
    """Whether these margins are too far apart (`pair.max_disagreement`)."""
    no_pair: str | None = None
    """Why the prompt has no pair."""
    extracts: tuple[ExtractEntry, ...] = ()
    extraction_cost: float | None = None

    def as_json(self, document: str | None) -> dict[str, Any]:
        """Return the entry as plain data; `document` is the id of the block that has its text."""
        values = {name: value for name, value in vars(self).items() if name not in ("responses", "extracts")}
        return {
            **values,
            "document": document,
            "responses": [asdict(response) for response in self.responses],
            "extracts": [asdict(extract) for extract in self.extracts],
        }

    def index_row(self) -> dict[str, Any]:
        """Return what the list of prompts needs to show, filter and sort the entry."""
        reasons = {
            f"{dimension.name}: {shorten(dimension.reason)}"
            for response in self.responses
            for dimension in response.dimensions
            if dimension.score is None and dimension.bounds is None and dimension.reason
        }
        return {
            "key": self.key,
            "id": self.id,
            "query": shorten(self.query, QUERY_PREVIEW),
            "group": self.group,
            "margin": self.margin,
            "maxValue": self.max_value,
            "left": self.left,
            "right": self.right,
            "disputed": self.disputed,
            "noPair": self.no_pair,
            "unscored": sorted(reasons),
            "responses": [
                {
                    "id": response.id,
                    "value": response.value,
                    "length": len(response.text),
                    "scores": {dimension.name: dimension.score for dimension in response.dimensions},
                }
                for response in self.responses
            ],
        }


def shorten(text: str, limit: int = REASON_PREVIEW) -> str:
    """Return the start of a text on one line."""
    line = " ".join(text[: 2 * limit].split())
    return line if len(line) <= limit and len(text) <= 2 * limit else f"{line[:limit]}…"


def judge_costs(prices: PricesConfig) -> CostOf:
    """Return the function that computes what a verdict's calls cost as live calls without the provider's cache."""

    def cost(usage: JudgeUsage) -> float | None:
        if usage.judge.startswith(OFFLINE_PREFIX):
            return 0.0
        price = prices.models.get(usage.judge)
        return None if price is None else price.cost(usage.prompt_tokens, usage.completion_tokens)

    return cost


class DocumentSpans:
    """Converts character offsets of a document to UTF-16, and finds texts in it."""

    def __init__(self, text: str) -> None:
        self.text = text
        # Only characters outside the basic plane take two code units. Most documents have none.
        self._wide = [] if text.isascii() else [index for index, character in enumerate(text) if character > "\uffff"]

    def span(self, start: int, end: int) -> Span:
        """Return the span in UTF-16 code units."""
        return start + bisect_left(self._wide, start), end + bisect_left(self._wide, end)

    def evidence(self, evidence: Evidence) -> Span | None:
        """Return the span of a chunk; None if the document does not contain its text."""
        start = evidence.start
        if not evidence.text or self.text[start : evidence.end] != evidence.text:
            start = self.text.find(evidence.text) if evidence.text else -1  # published files have no offsets
        return None if start < 0 else self.span(start, start + len(evidence.text))


def response_entry(
    scored: ScoredResponse,
    spans: DocumentSpans,
    cost_of: CostOf,
    *,
    label: str,
    weights: Mapping[Dimension, float] = EQUAL_WEIGHTS,
) -> ResponseEntry:
    """Return the entry of a scored response to a prompt with that document; its value is the weighted reward."""
    response, bounds = scored.response, scored.reward_bounds(weights)
    return ResponseEntry(
        id=response.id,
        label=label,
        text=response.text,
        value=bounds[0] if bounds and bounds[0] == bounds[1] else None,
        bounds=bounds if bounds and bounds[0] != bounds[1] else None,
        tokens=response.tokens,
        truncated=response.truncated,
        dimensions=tuple(_dimension(name, verdict, spans, cost_of) for name, verdict in scored.verdicts.items()),
    )


def extract_entries(extraction: Extraction | None, spans: DocumentSpans) -> tuple[ExtractEntry, ...]:
    """Return the entries of the extracts; published ones have no spans."""
    return tuple(
        ExtractEntry(
            extract.first_percent,
            extract.last_percent,
            spans.span(extract.start, extract.end) if extract.end > extract.start else None,
            extract.text,
            extract.reason,
        )
        for extract in (extraction.extracts if extraction else ())
    )


def group_by_example(scored: Iterable[ScoredResponse], examples: Mapping[str, Any]) -> dict[str, list[ScoredResponse]]:
    """Return the scored responses to these examples, by example."""
    groups: dict[str, list[ScoredResponse]] = {}
    for response in scored:
        if response.response.example_id in examples:
            groups.setdefault(response.response.example_id, []).append(response)
    return groups


def _dimension(name: str, verdict: Verdict, spans: DocumentSpans, cost_of: CostOf) -> DimensionEntry:
    usage = verdict.model_dump(include=set(JudgeUsage.model_fields))
    costs = [cost_of(one) for one in verdict.members or (verdict,)]  # each judge of a panel has a price of its own
    known = [cost for cost in costs if cost is not None]
    return DimensionEntry(
        name=name,
        score=verdict.score,
        bounds=verdict.bounds,
        reason=verdict.reason,
        reply=verdict.analysis,
        truncated=verdict.truncated,
        cost=sum(known) if verdict.calls and len(known) == len(costs) else None,
        members={member.judge: member.score for member in verdict.members},
        statements=tuple(_statement(statement, spans) for statement in verdict.statements),
        **usage,
    )


def _statement(statement: Statement, spans: DocumentSpans) -> StatementEntry:
    located = [(chunk, spans.evidence(chunk)) for chunk in statement.evidence]
    return StatementEntry(
        statement.text,
        statement.support,
        statement.analysis,
        statement.reason,
        evidence=tuple(span for _, span in located if span is not None),
        quotes=tuple(chunk.text for chunk, span in located if span is None),
        votes=statement.votes,
        weight=statement.weight,
    )
