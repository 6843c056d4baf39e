"""A plan: calls, tokens, money and time of each stage that asks a judge, before the first call."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from longreward.evaluation.comparison import decodings
from longreward.judge import JudgeConfig
from longreward.judge.usage import PricesConfig
from longreward.params import Params
from longreward.planning.dry_run import dimension_of, name_of
from longreward.planning.estimate import (
    RequestTally,
    ScoringEstimate,
    ScoringItem,
    estimate_scoring,
    judges_by_template,
)
from longreward.planning.reply_stats import BATCH_HOURS, FIRST_TOKEN_S, OFFLINE_S, TOKENS_A_SECOND, Range
from longreward.planning.workload import (
    LENGTHS,
    Workload,
    sampled_lengths,
    workload_for_split,
    workload_from_files,
    workload_of_length,
)
from longreward.records import DIMENSIONS, Dimension
from longreward.reward import ScoreConfig


@dataclass(frozen=True)
class TemplatePlan:
    """The calls of one template, which are still to be made, and what they come to."""

    dimension: Dimension
    template: str
    judge: str
    calls: Range
    prompt_tokens: Range
    completion_tokens: Range
    answered: int
    """Questions whose answer is in the ledger: they cost nothing."""
    money: Range | None
    """None: the judge's price is not known."""


@dataclass(frozen=True)
class StagePlan:
    """One stage."""

    stage: str
    prompts: int
    responses: int
    complete: int
    """Prompts of which nothing is left to ask."""
    looked_at: int
    """Prompts that this was counted on; fewer than there are, it was scaled up."""
    lines: tuple[TemplatePlan, ...]
    seconds: Range
    learnt: Mapping[str, int]
    """By template: answers in the ledger that estimates were learnt from."""

    @property
    def calls(self) -> Range:
        return _sum(line.calls for line in self.lines)

    @property
    def prompt_tokens(self) -> Range:
        return _sum(line.prompt_tokens for line in self.lines)

    @property
    def completion_tokens(self) -> Range:
        return _sum(line.completion_tokens for line in self.lines)

    @property
    def money(self) -> Range | None:
        """None: the price of a judge is not known."""
        known = [line.money for line in self.lines if line.money is not None]
        return _sum(known) if len(known) == len(self.lines) else None

    def figures(self) -> dict[str, float]:
        """The forecast as metrics."""
        numbers = {
            "calls": self.calls,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
        }
        numbers |= {"money": self.money} if self.money is not None else {}
        figures = {f"forecast/{name}": number.expected for name, number in numbers.items()}
        return figures | {"forecast/calls_low": self.calls.low, "forecast/calls_high": self.calls.high}

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "prompts": self.prompts,
            "responses": self.responses,
            "complete": self.complete,
            "looked_at": self.looked_at,
            **_numbers(self),
            "answered": sum(line.answered for line in self.lines),
            "seconds": self.seconds.as_json(),
            "learnt": dict(self.learnt),
            "lines": [
                {
                    "dimension": line.dimension,
                    "template": line.template,
                    "judge": line.judge,
                    **_numbers(line),
                    "answered": line.answered,
                }
                for line in self.lines
            ],
        }


async def plan_scoring(
    stage: str,
    judge: JudgeConfig,
    config: ScoreConfig,
    prices: PricesConfig,
    items: Iterable[ScoringItem],
    *,
    ledger: Path | None,
    of: int | None = None,
    limit_s: float | None = None,
) -> StagePlan:
    """Of prompts with their responses; see `rehearse` for `of` and `limit_s`."""
    found = await estimate_scoring(judge, config, items, ledger=ledger, of=of, limit_s=limit_s)
    return _stage_plan(stage, judge, prices, found)


def merge_plans(low: StagePlan, middle: StagePlan, high: StagePlan) -> StagePlan:
    """One plan of three that were made for short, likely and long responses."""

    def between(a: Range, b: Range, c: Range) -> Range:
        return Range(min(a.low, b.low), b.expected, max(b.high, c.high))

    lines = []
    for line in middle.lines:
        least, most = (
            next((each for each in other.lines if each.template == line.template), line) for other in (low, high)
        )
        money = None
        if least.money is not None and line.money is not None and most.money is not None:
            money = between(least.money, line.money, most.money)
        lines.append(
            TemplatePlan(
                line.dimension,
                line.template,
                line.judge,
                between(least.calls, line.calls, most.calls),
                between(least.prompt_tokens, line.prompt_tokens, most.prompt_tokens),
                between(least.completion_tokens, line.completion_tokens, most.completion_tokens),
                line.answered,
                money,
            )
        )
    return StagePlan(
        middle.stage,
        middle.prompts,
        middle.responses,
        middle.complete,
        middle.looked_at,
        tuple(lines),
        between(low.seconds, middle.seconds, high.seconds),
        middle.learnt,
    )


def _stage_plan(stage: str, judge: JudgeConfig, prices: PricesConfig, found: ScoringEstimate) -> StagePlan:
    judges = judges_by_template(judge)
    ordered = sorted(found.tallies, key=lambda template: (DIMENSIONS.index(dimension_of(template)), ORDER[template]))
    lines = [_line(template, judges[template], prices, found.tallies[template]) for template in ordered]
    return StagePlan(
        stage,
        found.prompts,
        found.responses,
        round(found.complete),
        found.looked_at,
        tuple(lines),
        _seconds(judges, found.tallies),
        found.learnt,
    )


def _line(template: str, judge: JudgeConfig, prices: PricesConfig, tally: RequestTally) -> TemplatePlan:
    price = prices.price_for(judge.model, offline=judge.kind == "offline")
    money = None
    if price is not None:
        batch = is_batch(judge)
        pairs = ((getattr(tally.prompt_tokens, n), getattr(tally.completion_tokens, n)) for n in _NAMES)
        money = Range(*(price.cost(prompt, completion, batch=batch) for prompt, completion in pairs))
    return TemplatePlan(
        dimension_of(template),
        template,
        name_of(judge),
        tally.calls,
        tally.prompt_tokens,
        tally.completion_tokens,
        round(tally.answered),
        money,
    )


def is_batch(judge: JudgeConfig) -> bool:
    """Whether its calls go through the provider's batch interface."""
    return judge.mode != "live"


def _seconds(judges: Mapping[str, JudgeConfig], tallies: Mapping[str, RequestTally]) -> Range:
    """All judges work at once, each as fast as its limits and its answers allow."""
    by_judge: dict[int, list[str]] = {}
    for template in tallies:
        by_judge.setdefault(id(judges[template]), []).append(template)
    times = [_of_one(judges[names[0]], [tallies[name] for name in names]) for names in by_judge.values()]
    return Range(*(max((getattr(each, n) for each in times), default=0.0) for n in _NAMES))


def _of_one(judge: JudgeConfig, tallies: Sequence[RequestTally]) -> Range:
    calls = _sum(tally.calls for tally in tallies)
    prompt, completion = (_sum(getattr(each, name) for each in tallies) for name in ("prompt_tokens", _COMPLETION))
    if is_batch(judge):
        rounds = 2.0 if calls.high else 0.0
        return Range(0.0, rounds * BATCH_HOURS * 1800, rounds * BATCH_HOURS * 3600)
    seconds = []
    for name in _NAMES:
        n, said = getattr(calls, name), getattr(completion, name)
        answering = n * OFFLINE_S if judge.kind == "offline" else n * FIRST_TOKEN_S + said / TOKENS_A_SECOND
        limits = [answering / (1 if judge.kind == "offline" else judge.max_concurrency)]
        if judge.requests_per_minute is not None:
            limits.append(60 * n / judge.requests_per_minute)
        if judge.tokens_per_minute is not None:
            limits.append(60 * (getattr(prompt, name) + said) / judge.tokens_per_minute)
        seconds.append(max(limits))
    return Range(*seconds)


def _numbers(of: TemplatePlan | StagePlan) -> dict[str, Any]:
    return {
        "calls": of.calls.as_json(),
        "prompt_tokens": of.prompt_tokens.as_json(),
        "completion_tokens": of.completion_tokens.as_json(),
        "money": of.money.as_json() if of.money is not None else None,
    }


def _sum(ranges: Iterable[Range]) -> Range:
    return sum(ranges, Range())


_NAMES = ("low", "expected", "high")
_COMPLETION = "completion_tokens"
ORDER = {"helpfulness": 0, "logicality": 0, "statements": 0, "support": 1, "extraction": 0, "completeness": 1}


# The plan of a project: of each stage that asks a judge, from what lies there by now.


Stage = Literal["score", "evaluate"]
STAGES: tuple[Stage, ...] = ("score", "evaluate")


@dataclass(frozen=True)
class ProjectPlan:
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
) -> ProjectPlan:
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
) -> ProjectPlan:
    """Of one `longreward score` with these files."""
    return await _plan(params, [("score", workload_from_files(data, responses))], ledger=ledger, sample=sample)


def _of_pairs(params: Params, root: Path) -> tuple[str, ...]:
    """What the method of the pairs asks of the judge."""
    if params.pair.method != "pairwise":
        return ()
    from longreward.pairs.pairwise import max_calls

    calls, tokens = max_calls(
        params.pair,
        _material(params, "score", root).items("expected"),
        context_tokens=params.pair.pairwise.context_tokens,
    )
    return (f"pair: pair.method is pairwise, which asks at most {calls:,} questions with about {tokens:,} tokens",)


def _material(params: Params, stage: Stage, root: Path) -> Workload:
    sampled = root / "data/sampled/sampled_responses.jsonl"
    room = params.sample.max_new_tokens
    if stage == "score":
        brought = root / "data/prepared/responses.jsonl" if params.prepare.responses else None
        there = sampled if sampled.is_file() else brought
        return workload_for_split(
            params.prepare, "preference", root=root, responses=there, n=params.sample.n, room=room
        )
    answers = MODELS * sum(decoding.samples for decoding in decodings(params.evaluate))
    tokens = sampled_lengths(sampled)
    if tokens is not None:
        return workload_of_length(params.prepare, "heldout", root=root, n=answers, tokens=tokens)
    return workload_for_split(params.prepare, "heldout", root=root, responses=None, n=answers, room=room)


async def _plan(
    params: Params, found: Sequence[tuple[Stage, Workload]], *, ledger: Path | None, sample: int | None
) -> ProjectPlan:
    stages = [await _of_stage(params, stage, material, ledger=ledger, sample=sample) for stage, material in found]
    told = [f"{stage}: {material.told}" for stage, material in found]
    return ProjectPlan(tuple(stages), params.prices.currency, params.score.tokenizer, (*told, *_notes(params, stages)))


async def _of_stage(
    params: Params, stage: Stage, material: Workload, *, ledger: Path | None, sample: int | None
) -> StagePlan:
    score = params.score.model_copy(update={"strategy": "full"}) if stage == "evaluate" else params.score
    all_chosen = _chosen(material, sample)
    few = _chosen(material, min(sample or FEW, FEW)) if material.assumed else None
    plans = []
    for length in LENGTHS if material.assumed else LENGTHS[1:2]:
        chosen = all_chosen if length == "expected" else few
        items: Iterator[ScoringItem] = material.items(length)
        if chosen is not None:
            items = (item for place, item in enumerate(items) if place in chosen[0])
        of = chosen[1] if chosen is not None else None
        plans.append(await plan_scoring(stage, params.judge, score, params.prices, items, ledger=ledger, of=of))
    return merge_plans(*plans) if len(plans) == len(LENGTHS) else plans[0]


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
    if params.score.strategy == "adaptive":
        yield "score.strategy is adaptive: the upper limit is full scoring, the lower limit two responses per prompt"
    if any(is_batch(judge) for judge, _ in params.judge.judges()):
        yield "judge.mode is batch: money at the batch price, time as long as a provider may take for two rounds"
    unpriced = [
        j.model or j.kind
        for j, _ in params.judge.judges()
        if params.prices.price_for(j.model, offline=j.kind == "offline") is None
    ]
    if unpriced:
        yield f"what {', '.join(dict.fromkeys(unpriced))} costs is not known: add it to prices.models"
    if params.score.retriever.kind == "http":
        yield "embeddings are not counted; nor is, where statements are listed already, which supports the ledger has"


MODELS = 2  # that `evaluate` compares
FEW = 100  # prompts on which it is seen what shorter and longer responses would make of the plan
