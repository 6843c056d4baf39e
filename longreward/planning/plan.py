"""Plans: calls, tokens, money and time of each stage that uses a judge, before the first call."""

import itertools
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from longreward.evaluation.comparison import decodings
from longreward.judge import JudgeConfig
from longreward.judge.usage import PricesConfig
from longreward.params import Params
from longreward.planning.dry_run import dimension_for, judge_name
from longreward.planning.estimate import RequestTally, ScoringItem, estimate_scoring, judges_by_template
from longreward.planning.reply_stats import Range
from longreward.planning.workload import (
    LENGTHS,
    Workload,
    sampled_lengths,
    workload_for_split,
    workload_from_files,
)
from longreward.records import DIMENSIONS, Dimension
from longreward.reward import ScoreConfig

Stage = Literal["score", "evaluate"]
STAGES: tuple[Stage, ...] = ("score", "evaluate")

# Assumed speed of one call; the offline judge takes OFFLINE_CALL_S for all of it.
FIRST_TOKEN_S = 1.0
TOKENS_PER_SECOND = 50.0
OFFLINE_CALL_S = 0.002
BATCH_HOURS = 24.0  # the time that providers promise for a batch
EVALUATED_MODELS = 2  # `evaluate` compares the SFT model and the DPO model
LENGTH_SAMPLE = 100  # prompts on which short and long responses are estimated
# The order of lines within a dimension: first requests, then those that depend on their replies.
TEMPLATE_ORDER = {"helpfulness": 0, "logicality": 0, "statements": 0, "support": 1, "extraction": 0, "completeness": 1}


@dataclass(frozen=True)
class TemplatePlan:
    """The remaining calls with one prompt template."""

    dimension: Dimension
    template: str
    judge: str
    calls: Range
    prompt_tokens: Range
    completion_tokens: Range
    cached: int
    """Requests whose reply is in the ledger; they cost nothing."""
    money: Range | None
    """None: the price of the judge is unknown."""


@dataclass(frozen=True)
class StagePlan:
    """The remaining calls of one stage."""

    stage: str
    prompts: int
    responses: int
    complete_prompts: int
    """Prompts for which all replies are in the ledger."""
    counted_prompts: int
    """Prompts on which the plan is based; if there are more, it is scaled up."""
    templates: tuple[TemplatePlan, ...]
    seconds: Range
    observed_replies: Mapping[str, int]
    """Replies in the ledger that the expected replies are based on, by template."""

    @property
    def calls(self) -> Range:
        return _sum(plan.calls for plan in self.templates)

    @property
    def prompt_tokens(self) -> Range:
        return _sum(plan.prompt_tokens for plan in self.templates)

    @property
    def completion_tokens(self) -> Range:
        return _sum(plan.completion_tokens for plan in self.templates)

    @property
    def cached(self) -> int:
        return sum(plan.cached for plan in self.templates)

    @property
    def money(self) -> Range | None:
        """None: the price of a judge is unknown."""
        costs = [plan.money for plan in self.templates if plan.money is not None]
        return _sum(costs) if len(costs) == len(self.templates) else None

    def metrics(self) -> dict[str, float]:
        """Return the forecast as metrics of the stage."""
        metrics = {
            "forecast/calls": self.calls.expected,
            "forecast/calls_low": self.calls.low,
            "forecast/calls_high": self.calls.high,
            "forecast/prompt_tokens": self.prompt_tokens.expected,
            "forecast/completion_tokens": self.completion_tokens.expected,
        }
        return metrics if self.money is None else metrics | {"forecast/money": self.money.expected}

    def as_json(self) -> dict[str, Any]:
        """Return all fields and the totals over all templates."""
        totals = {"calls": self.calls, "prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}
        return {
            **asdict(self),
            **{name: asdict(total) for name, total in totals.items()},
            "cached": self.cached,
            "money": asdict(self.money) if self.money is not None else None,
        }


@dataclass(frozen=True)
class ProjectPlan:
    """The plans of several stages, with notes on how to read them."""

    stages: tuple[StagePlan, ...]
    currency: str
    tokenizer: str
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
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
    """Plan the stages of a project.

    Args:
        params: the settings of the project.
        ledger: the replies so far.
        root: the project folder.
        stages: the stages to plan.
        sample: number of prompts per stage to count; the plan is scaled up. None: all.

    Raises:
        ConfigError, DataError: the data cannot be read.
    """
    # Without pairs from scores, the stage `score` makes no requests.
    needs_scores = params.score.strategy != "none" and params.pair.method != "given"
    workloads = [(stage, _stage_workload(params, stage, root)) for stage in stages if stage != "score" or needs_scores]
    plan = await _plan_workloads(params, workloads, ledger=ledger, sample=sample)
    notes = [*plan.notes]
    if "score" in stages and params.pair.method == "pairwise":
        from longreward.pairs.pairwise import max_calls

        items = _stage_workload(params, "score", root).items("expected")
        calls, tokens = max_calls(params.pair, items, context_tokens=params.pair.pairwise.context_tokens)
        notes.append(f"pair: pair.method pairwise makes at most {calls:,} requests with about {tokens:,} tokens")
    return replace(plan, notes=(*notes, "a stage that DVC finds unchanged does not run and costs nothing"))


async def plan_files(
    params: Params, *, data: Path, responses: Path, ledger: Path | None, sample: int | None = None
) -> ProjectPlan:
    """Plan one `longreward score` with these files."""
    workload = workload_from_files(data, responses)
    return await _plan_workloads(params, [("score", workload)], ledger=ledger, sample=sample)


async def plan_scoring(
    stage: str,
    judge: JudgeConfig,
    config: ScoreConfig,
    prices: PricesConfig,
    items: Iterable[ScoringItem],
    *,
    ledger: Path | None,
    total_prompts: int | None = None,
    time_limit_s: float | None = None,
) -> StagePlan:
    """Plan the scoring of prompts with their responses; see `estimate_scoring` for the arguments."""
    estimate = await estimate_scoring(
        judge, config, items, ledger=ledger, total_prompts=total_prompts, time_limit_s=time_limit_s
    )
    judges = judges_by_template(judge)
    templates = []
    for name, tally in estimate.tallies.items():
        template_judge, money = judges[name], None
        if (price := prices.price_for(template_judge)) is not None:
            cost = partial(price.cost, batch=template_judge.mode != "live")
            money = Range.combine(cost, tally.prompt_tokens, tally.completion_tokens)
        templates.append(
            TemplatePlan(
                dimension_for(name),
                name,
                judge_name(template_judge),
                tally.calls,
                tally.prompt_tokens,
                tally.completion_tokens,
                round(tally.cached),
                money,
            )
        )
    templates.sort(key=lambda plan: (DIMENSIONS.index(plan.dimension), TEMPLATE_ORDER.get(plan.template, 0)))
    # All judges work at the same time, so the slowest one determines the duration.
    durations = [
        _judge_duration(one, [tally for name, tally in estimate.tallies.items() if judges[name] is one])
        for one in {id(one): one for one in judges.values()}.values()
    ]
    return StagePlan(
        stage,
        estimate.prompts,
        estimate.responses,
        round(estimate.complete),
        estimate.counted_prompts,
        tuple(templates),
        Range.combine(lambda *seconds: max(seconds), *durations),
        estimate.observed_replies,
    )


def merge_plans(short: StagePlan, expected: StagePlan, long: StagePlan) -> StagePlan:
    """Merge plans for short, expected and long responses into one with wider ranges."""

    def widen(low: Range, middle: Range, high: Range) -> Range:
        return Range(min(low.low, middle.low), middle.expected, max(middle.high, high.high))

    # A template may be missing in the plan for short responses, which have fewer statements.
    short_plans, long_plans = ({plan.template: plan for plan in stage.templates} for stage in (short, long))
    templates = []
    for plan in expected.templates:
        low, high = short_plans.get(plan.template, plan), long_plans.get(plan.template, plan)
        money = None
        if low.money is not None and plan.money is not None and high.money is not None:
            money = widen(low.money, plan.money, high.money)
        templates.append(
            replace(
                plan,
                calls=widen(low.calls, plan.calls, high.calls),
                prompt_tokens=widen(low.prompt_tokens, plan.prompt_tokens, high.prompt_tokens),
                completion_tokens=widen(low.completion_tokens, plan.completion_tokens, high.completion_tokens),
                money=money,
            )
        )
    return replace(expected, templates=tuple(templates), seconds=widen(short.seconds, expected.seconds, long.seconds))


def _judge_duration(judge: JudgeConfig, tallies: Sequence[RequestTally]) -> Range:
    total_calls = _sum(tally.calls for tally in tallies)
    # Providers usually finish batches earlier, but do not say when.
    if judge.mode != "live":
        seconds = 2 * BATCH_HOURS * 3600 if total_calls.high else 0.0  # two rounds
        return Range(0.0, seconds / 2, seconds)

    def duration(calls: float, prompt_tokens: float, completion_tokens: float) -> float:
        if judge.kind == "offline":
            return calls * OFFLINE_CALL_S
        limits = [(calls * FIRST_TOKEN_S + completion_tokens / TOKENS_PER_SECOND) / judge.max_concurrency]
        if judge.requests_per_minute is not None:
            limits.append(60 * calls / judge.requests_per_minute)
        if judge.tokens_per_minute is not None:
            limits.append(60 * (prompt_tokens + completion_tokens) / judge.tokens_per_minute)
        return max(limits)

    return Range.combine(
        duration,
        total_calls,
        _sum(tally.prompt_tokens for tally in tallies),
        _sum(tally.completion_tokens for tally in tallies),
    )


def _stage_workload(params: Params, stage: Stage, root: Path) -> Workload:
    sampled = root / "data/sampled/sampled_responses.jsonl"
    max_new_tokens = params.sample.max_new_tokens
    if stage == "score":
        provided = root / "data/prepared/responses.jsonl" if params.prepare.responses else None
        return workload_for_split(
            params.prepare,
            "preference",
            root=root,
            responses=sampled if sampled.is_file() else provided,
            n=params.sample.n,
            max_new_tokens=max_new_tokens,
        )
    n = EVALUATED_MODELS * sum(decoding.samples for decoding in decodings(params.evaluate))
    return workload_for_split(
        params.prepare,
        "heldout",
        root=root,
        responses=None,
        n=n,
        max_new_tokens=max_new_tokens,
        tokens=sampled_lengths(sampled),
    )


async def _plan_workloads(
    params: Params, workloads: Sequence[tuple[Stage, Workload]], *, ledger: Path | None, sample: int | None
) -> ProjectPlan:
    plans = []
    for stage, workload in workloads:
        # `evaluate` needs all scores of every response.
        config = params.score.model_copy(update={"strategy": "full"}) if stage == "evaluate" else params.score
        stage_plans = []
        for length in LENGTHS if workload.is_assumed else LENGTHS[1:2]:
            items: Iterator[ScoringItem] = workload.items(length)
            # The range of lengths matters less than the expected value, so a small sample is enough for it.
            size = sample if length == "expected" else min(sample or LENGTH_SAMPLE, LENGTH_SAMPLE)
            total_prompts = None
            if size is not None:
                # A fixed seed, so that a repeated plan counts the same prompts.
                total_prompts = sum(1 for _ in workload.items("expected"))
                indices = set(random.Random(0).sample(range(total_prompts), min(size, total_prompts)))
                items = itertools.compress(items, (index in indices for index in range(total_prompts)))
            stage_plans.append(
                await plan_scoring(
                    stage, params.judge, config, params.prices, items, ledger=ledger, total_prompts=total_prompts
                )
            )
        plans.append(merge_plans(*stage_plans) if workload.is_assumed else stage_plans[0])
    sources = [f"{stage}: {workload.source}" for stage, workload in workloads]
    return ProjectPlan(tuple(plans), params.prices.currency, params.score.tokenizer, (*sources, *_notes(params, plans)))


def _notes(params: Params, plans: Sequence[StagePlan]) -> Iterator[str]:
    accuracy = "is within a quarter of most models' counts"
    if params.score.tokenizer != "simple":
        accuracy = "is exact if it is the judge's tokenizer"
    yield (
        f"prompt tokens are counted with score.tokenizer {params.score.tokenizer}, which {accuracy} (without the "
        "tokens of the server's chat template)"
    )
    observed = sorted({template for plan in plans for template in plan.observed_replies})
    if observed:
        yield f"replies and attempts are estimated from this judge's replies in the ledger for {', '.join(observed)}"
    if any(plan.calls.high and "statements" not in plan.observed_replies for plan in plans):
        yield "one statement per sentence is assumed (0.5 to 2): the ledger has too few lists of this judge"
    if params.score.strategy == "adaptive":
        yield "with score.strategy adaptive, the expected value is that of full, and low that of two responses a prompt"
    judges = [judge for judge, _ in params.judge.judges()]
    if any(judge.mode != "live" for judge in judges):
        yield "judge.mode is batch: money at batch prices, time as long as a provider may take for two rounds"
    unpriced = [judge.model or judge.kind for judge in judges if params.prices.price_for(judge) is None]
    if unpriced:
        yield f"the price of {', '.join(dict.fromkeys(unpriced))} is unknown: add it to prices.models"
    if params.score.retriever.kind == "http":
        yield (
            "embeddings are not counted, and neither is how many support requests are cached for statements that are "
            "listed already"
        )


def _sum(ranges: Iterable[Range]) -> Range:
    return sum(ranges, Range())
