"""Entries of the SFT model's answers next to the trained model's: held-out prompts, and the cases of benchmarks."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from heapq import nsmallest
from statistics import mean

from longreward.benchmarks.types import Answer, Benchmark, Case, Verdict, join_turns
from longreward.evaluation.statistics import IntervalOptions
from longreward.inspection.entries import (
    CostOf,
    DimensionEntry,
    DocumentSpans,
    PromptEntry,
    ResponseEntry,
    extract_entries,
    response_entry,
)
from longreward.records import Example, Extraction, Role, ScoredResponse

LABELS: Mapping[Role, str] = {"sft": "SFT", "dpo": "DPO"}
HIDDEN_MEASURES = frozenset(("helpfulness", "logicality", "faithfulness", "completeness", "reward", "tokens"))
"""Measures that the page shows as scores or lengths already."""

JudgedAnswer = tuple[Role, str, ScoredResponse]
"""The model, the name of the decoding, and the answer with its verdicts."""


def evaluation_entries(
    examples: Mapping[str, Example],
    answers: Iterable[JudgedAnswer],
    extractions: Mapping[str, Extraction],
    measures: Mapping[tuple[str, str, str], Mapping[str, float]],
    cost_of: CostOf,
) -> list[PromptEntry]:
    """Return an entry for each held-out prompt and decoding, largest differences of the reward first.

    Args:
        measures: gold measures by model, decoding and response id.
    """
    groups: dict[tuple[str, str], dict[Role, list[ScoredResponse]]] = {}
    for role, decoding, answer in answers:
        groups.setdefault((decoding, answer.response.example_id), {}).setdefault(role, []).append(answer)
    entries = []
    for (decoding, example_id), by_role in groups.items():
        if (example := examples.get(example_id)) is None:
            continue
        spans = DocumentSpans(example.context)
        sides = {
            role: [
                replace(
                    response_entry(answer, spans, cost_of, label=_label(role, answer.response.number, len(scored))),
                    id=f"{role}-{answer.response.id}",  # both models' answers have the same ids
                    measures=_shown(measures.get((role, decoding, answer.response.id), {})),
                )
                for answer in scored
            ]
            for role, scored in by_role.items()
        }
        entries.append(
            _comparison(
                f"evaluation/{example_id}@{decoding}",
                example_id,
                sides,
                query=example.query,
                document=example.context,
                document_name=example.document_id,
                group=decoding,
                answer=example.answer,
                extracts=extract_entries(extractions.get(example_id), spans),
            )
        )
    return sorted_by_difference(entries)


def benchmark_entries(
    benchmark: Benchmark[Case], answers: Mapping[Role, Sequence[Answer]], verdicts: Mapping[Role, Sequence[Verdict]]
) -> Iterator[PromptEntry]:
    """Yield an entry for each case of a benchmark."""
    options = IntervalOptions(resamples=100, confidence=0.95, seed=0)  # the intervals are not used
    scores = {
        role: {
            case.case_id: case.score
            for case in benchmark.summarize(role_answers, verdicts.get(role, ()), options).case_scores
        }
        for role, role_answers in answers.items()
    }
    # Indices, because the records may be on disk.
    verdicts_by_case: dict[tuple[Role, str], list[int]] = {}
    for role, role_verdicts in verdicts.items():
        for index, verdict in enumerate(role_verdicts):
            verdicts_by_case.setdefault((role, verdict.case_id), []).append(index)
    answer_by_case = {
        (role, answer.case_id): index for role, group in answers.items() for index, answer in enumerate(group)
    }
    for case in benchmark.cases:
        sides: dict[Role, list[ResponseEntry]] = {
            role: [
                _benchmark_response(
                    role,
                    group[answer_by_case[role, case.id]],
                    scores[role].get(case.id),
                    [verdicts[role][index] for index in verdicts_by_case.get((role, case.id), ())],
                )
            ]
            for role, group in answers.items()
            if (role, case.id) in answer_by_case
        }
        if sides:
            query, document = benchmark.question_and_document(case)
            key = f"{benchmark.name}/{case.id}"
            group, max_value = benchmark.name, benchmark.max_score
            yield _comparison(key, case.id, sides, query=query, document=document, group=group, max_value=max_value)


def rank_by_reward_difference(answers: Iterable[tuple[Role, str, str, float | None]]) -> list[tuple[str, str]]:
    """Return the decoding and the example's id of each entry, in the order of `evaluation_entries`.

    Args:
        answers: model, decoding, example id and reward of each answer.
    """
    rewards: dict[tuple[str, str], dict[Role, list[float]]] = {}
    for role, decoding, example_id, reward in answers:
        group = rewards.setdefault((decoding, example_id), {}).setdefault(role, [])
        if reward is not None:
            group.append(reward)
    margins = {key: _margin(sides) for key, sides in rewards.items()}
    return sorted(margins, key=lambda key: _by_margin(margins[key]))


def sorted_by_difference(entries: Iterable[PromptEntry], limit: int | None = None) -> list[PromptEntry]:
    """Sort by the difference of the models as a share of the scale, largest first; entries without one come last.

    Holds no more than `limit` entries.
    """
    return sorted(entries, key=_by_difference) if limit is None else nsmallest(limit, entries, key=_by_difference)


def _comparison(key: str, id: str, sides: Mapping[Role, Sequence[ResponseEntry]], **fields: object) -> PromptEntry:
    return PromptEntry(
        key=key,
        id=id,
        responses=tuple(response for role in LABELS for response in sides.get(role, ())),
        left=next((response.id for response in sides.get("sft", ())), None),
        right=next((response.id for response in sides.get("dpo", ())), None),
        margin=_margin({role: _values(side) for role, side in sides.items()}),
        **fields,  # type: ignore[arg-type]
    )


def _values(responses: Sequence[ResponseEntry]) -> list[float]:
    return [response.value for response in responses if response.value is not None]


def _margin(values: Mapping[Role, Sequence[float]]) -> float | None:
    means = {role: mean(side) for role, side in values.items() if side}
    return means["dpo"] - means["sft"] if len(means) == 2 else None


def _by_difference(entry: PromptEntry) -> float:
    return _by_margin(entry.margin, entry.max_value)


def _by_margin(margin: float | None, max_value: float = 1.0) -> float:
    return -abs(margin) / max_value if margin is not None else 1.0


def _label(role: Role, number: int, count: int) -> str:
    return LABELS[role] if count == 1 else f"{LABELS[role]} #{number}"


def _shown(measures: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in measures.items() if name not in HIDDEN_MEASURES}


def _benchmark_response(role: Role, answer: Answer, score: float | None, verdicts: Sequence[Verdict]) -> ResponseEntry:
    return ResponseEntry(
        id=f"{role}-{answer.case_id}",
        label=LABELS[role],
        text=join_turns(answer.turns),
        value=score,
        tokens=sum(answer.tokens),
        truncated="length" in answer.finish_reasons,
        dimensions=tuple(
            DimensionEntry(
                name=verdict.part,
                score=verdict.value,
                reason=verdict.reason,
                reply=verdict.judgment,
                judge=verdict.judge,
            )
            for verdict in verdicts
        ),
    )
