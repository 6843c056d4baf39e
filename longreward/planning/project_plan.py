"""The plan of a project: of each stage that asks a judge, from what lies there by now."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from longreward.evaluation.comparison import decodings
from longreward.params import Params
from longreward.planning.plan import StagePlan, is_batch, merged, plan_scoring
from longreward.planning.scoring_estimate import Item
from longreward.planning.workload import LENGTHS, Workload, estimate_workload, from_files, material_of, similar_workload

Stage = Literal["score", "evaluate"]
STAGES: tuple[Stage, ...] = ("score", "evaluate")


@dataclass(frozen=True)
class Plan:
    """The stages, and what must be known to read their numbers."""

    stages: tuple[StagePlan, ...]
    currency: str
    tokenizer: str
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "currency": self.currency,
            "tokenizer": self.tokenizer,
            "stages": {stage.stage: stage.as_json() for stage in self.stages},
            "notes": list(self.notes),
        }


async def plan_project(
    params: Params,
    *,
    ledger: Path | None,
    root: Path = Path(),
    stages: Sequence[Stage] = STAGES,
    sample: int | None = None,
) -> Plan:
    """Of the project in the folder `root`; `sample` looks at so many prompts of each stage and scales up.

    Raises ConfigError or DataError where the data cannot be read.
    """
    scores = params.score.strategy != "none" and params.pair.method != "given"
    asked = [stage for stage in stages if stage != "score" or scores]
    found = [(stage, _material(params, stage, root)) for stage in asked]
    plan = await _plan(params, found, ledger=ledger, sample=sample)
    last = "a stage that DVC finds up to date does not run and costs nothing"
    return replace(plan, notes=(*plan.notes, *(_of_pairs(params, root) if "score" in stages else ()), last))


async def plan_files(
    params: Params, *, data: Path, responses: Path, ledger: Path | None, sample: int | None = None
) -> Plan:
    """Of one `longreward score` with these files."""
    return await _plan(params, [("score", from_files(data, responses))], ledger=ledger, sample=sample)


def _of_pairs(params: Params, root: Path) -> tuple[str, ...]:
    """What the method of the pairs asks of the judge."""
    if params.pair.method != "pairwise":
        return ()
    from longreward.pairs.pairwise import max_calls

    calls, tokens = max_calls(params.pair, _material(params, "score", root).items("expected"))
    return (f"pair: pair.method is pairwise, which asks at most {calls:,} questions with about {tokens:,} tokens",)


def _material(params: Params, stage: Stage, root: Path) -> Workload:
    sampled = root / "data/sampled/sampled_responses.jsonl"
    room = params.sample.max_new_tokens
    if stage == "score":
        brought = root / "data/prepared/responses.jsonl" if params.prepare.responses else None
        there = sampled if sampled.is_file() else brought
        return material_of(params.prepare, "preference", root=root, responses=there, n=params.sample.n, room=room)
    answers = MODELS * sum(decoding.samples for decoding in decodings(params.evaluate))
    tokens = estimate_workload(sampled)
    if tokens is not None:
        return similar_workload(params.prepare, "heldout", root=root, n=answers, tokens=tokens)
    return material_of(params.prepare, "heldout", root=root, responses=None, n=answers, room=room)


async def _plan(
    params: Params, found: Sequence[tuple[Stage, Workload]], *, ledger: Path | None, sample: int | None
) -> Plan:
    stages = [await _of_stage(params, stage, material, ledger=ledger, sample=sample) for stage, material in found]
    told = [f"{stage}: {material.told}" for stage, material in found]
    return Plan(tuple(stages), params.prices.currency, params.score.tokenizer, (*told, *_notes(params, stages)))


async def _of_stage(
    params: Params, stage: Stage, material: Workload, *, ledger: Path | None, sample: int | None
) -> StagePlan:
    score = params.score.model_copy(update={"strategy": "full"}) if stage == "evaluate" else params.score
    all_chosen = _chosen(material, sample)
    few = _chosen(material, min(sample or FEW, FEW)) if material.assumed else None
    plans = []
    for length in LENGTHS if material.assumed else LENGTHS[1:2]:
        chosen = all_chosen if length == "expected" else few
        items: Iterator[Item] = material.items(length)
        if chosen is not None:
            items = (item for place, item in enumerate(items) if place in chosen[0])
        of = chosen[1] if chosen is not None else None
        plans.append(await plan_scoring(stage, params.judge, score, params.prices, items, ledger=ledger, of=of))
    return merged(*plans) if len(plans) == len(LENGTHS) else plans[0]


def _chosen(material: Workload, sample: int | None) -> tuple[frozenset[int], int] | None:
    """The places of the prompts to look at, and how many there are; None: all."""
    if sample is None:
        return None
    count = sum(1 for _ in material.items("expected"))
    return frozenset(random.Random(0).sample(range(count), min(sample, count))), count


def _notes(params: Params, stages: Sequence[StagePlan]) -> Iterator[str]:
    exact = params.score.tokenizer != "simple"
    margin = (
        "is a model's own; if it is the judge's, prompts are exact" if exact else "is within a quarter of most models'"
    )
    yield f"tokens are counted with score.tokenizer {params.score.tokenizer}, which {margin} (but for a server's frame)"
    learnt = sorted({name for stage in stages for name in stage.learnt})
    if learnt:
        yield f"answers and attempts are expected as this judge's in the ledger for {', '.join(learnt)}"
    if any(stage.calls.high and "statements" not in stage.learnt for stage in stages):
        yield "statements are expected to be one a sentence (half to two): this judge has listed too few so far"
    if params.score.strategy == "extremes":
        yield "score.strategy is extremes: full is the most that it may ask, two responses a prompt the least"
    if any(is_batch(judge) for judge, _ in params.judge.judges()):
        yield "judge.mode is batch: money at the batch price, time as long as a provider may take for two rounds"
    unpriced = [
        j.model or j.kind
        for j, _ in params.judge.judges()
        if params.prices.of(j.model, offline=j.kind == "offline") is None
    ]
    if unpriced:
        yield f"what {', '.join(dict.fromkeys(unpriced))} costs is not known: add it to prices.models"
    if params.score.retriever.kind == "http":
        yield "embeddings are not counted; nor is, where statements are listed already, which supports the ledger has"


MODELS = 2  # that `evaluate` compares
FEW = 100  # prompts on which it is seen what shorter and longer responses would make of the plan
