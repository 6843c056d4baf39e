"""Entries of the prompts that `score` and `pair` worked on: ranked responses, and the pair side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from longreward.inspection.entries import (
    CostOf,
    DocumentSpans,
    PromptEntry,
    ResponseEntry,
    extract_entries,
    response_entry,
)
from longreward.records import (
    EQUAL_WEIGHTS,
    Dimension,
    Example,
    Extraction,
    PreferencePair,
    Response,
    ScoredResponse,
)


@dataclass(frozen=True)
class PromptRecords:
    """The records of one prompt. Without scores, `responses` are the sampled ones."""

    example: Example
    scored: Sequence[ScoredResponse] = ()
    responses: Sequence[Response] = ()
    extraction: Extraction | None = None
    pair: PreferencePair | None = None
    no_pair: str | None = None
    measures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Further values of responses, by response id, such as the rewards of a reward model."""


def reward_entry(
    records: PromptRecords, cost_of: CostOf, *, weights: Mapping[Dimension, float] = EQUAL_WEIGHTS
) -> PromptEntry:
    """Return the entry of a prompt, its responses ranked by the weighted reward; unscored ones come last."""
    example, pair = records.example, records.pair
    spans = DocumentSpans(example.context)
    responses = [
        response_entry(scored, spans, cost_of, label=_label(scored.response), weights=weights)
        for scored in records.scored
    ]
    ids = {response.id for response in responses}
    # The reference answer of `contrast`, and both sides of a given pair, were not sampled.
    sides = [pair.chosen, pair.rejected] if pair else []
    responses += [
        _unscored_entry(response, pair)
        for response in {response.id: response for response in [*records.responses, *sides]}.values()
        if response.id not in ids
    ]
    responses = [
        replace(response, measures={**response.measures, **records.measures.get(response.id, {})})
        for response in responses
    ]
    ranked = tuple(sorted(responses, key=_rank))
    left, right = (pair.chosen.id, pair.rejected.id) if pair else _first_and_last(ranked)
    return PromptEntry(
        key=example.id,
        id=example.id,
        query=example.query,
        responses=ranked,
        document=example.context,
        document_name=example.document_id,
        answer=example.answer,
        left=left,
        right=right,
        is_pair=pair is not None,
        margin=pair.margin if pair else None,
        member_margins=pair.member_margins if pair else {},
        disputed=pair is not None and pair.disputed,
        no_pair=records.no_pair,
        extracts=extract_entries(records.extraction, spans),
        extraction_cost=cost_of(records.extraction) if records.extraction and records.extraction.calls else None,
    )


def _unscored_entry(response: Response, pair: PreferencePair | None) -> ResponseEntry:
    """Return the entry of a response without LongReward's scores, with its reward by another pair method."""
    rewards = {pair.chosen.id: pair.chosen_reward, pair.rejected.id: pair.rejected_reward} if pair else {}
    reward = rewards.get(response.id)
    return ResponseEntry(
        id=response.id,
        label=_label(response),
        text=response.text,
        value=None,
        tokens=response.tokens,
        truncated=response.truncated,
        measures={} if pair is None or reward is None else {f"reward of {pair.method}": reward},
    )


def _label(response: Response) -> str:
    number = response.id.rpartition("-")[2]
    return f"#{number}" if number.isdecimal() else number


def _rank(response: ResponseEntry) -> tuple[bool, float]:
    value = response.value
    if value is None and response.bounds:
        value = sum(response.bounds) / 2
    return value is None, -(value or 0.0)


def _first_and_last(ranked: Sequence[ResponseEntry]) -> tuple[str | None, str | None]:
    if not ranked:
        return None, None
    scored = [response for response in ranked if response.value is not None] or ranked
    return scored[0].id, scored[-1].id if len(scored) > 1 else None
