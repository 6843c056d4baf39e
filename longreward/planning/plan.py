"""A plan: calls, tokens, money and time of each stage that asks a judge, before the first call."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longreward.judge import JudgeConfig
from longreward.judge.prices import PricesConfig
from longreward.planning.assumptions import BATCH_HOURS, FIRST_TOKEN_S, OFFLINE_S, TOKENS_A_SECOND
from longreward.planning.dry_run import dimension_of, name_of
from longreward.planning.ranges import Range
from longreward.planning.scoring_estimate import Item, ScoringEstimate, Tally, estimate_scoring, judges_by_template
from longreward.records import DIMENSIONS, Dimension
from longreward.reward import ScoreConfig


@dataclass(frozen=True)
class Line:
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
    lines: tuple[Line, ...]
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
    items: Iterable[Item],
    *,
    ledger: Path | None,
    of: int | None = None,
    limit_s: float | None = None,
) -> StagePlan:
    """Of prompts with their responses; see `rehearse` for `of` and `limit_s`."""
    found = await estimate_scoring(judge, config, items, ledger=ledger, of=of, limit_s=limit_s)
    return _plan(stage, judge, prices, found)


def merged(low: StagePlan, middle: StagePlan, high: StagePlan) -> StagePlan:
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
            Line(
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


def _plan(stage: str, judge: JudgeConfig, prices: PricesConfig, found: ScoringEstimate) -> StagePlan:
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


def _line(template: str, judge: JudgeConfig, prices: PricesConfig, tally: Tally) -> Line:
    price = prices.of(judge.model, offline=judge.kind == "offline")
    money = None
    if price is not None:
        batch = is_batch(judge)
        pairs = ((getattr(tally.prompt_tokens, n), getattr(tally.completion_tokens, n)) for n in _NAMES)
        money = Range(*(price.cost(prompt, completion, batch=batch) for prompt, completion in pairs))
    return Line(
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


def _seconds(judges: Mapping[str, JudgeConfig], tallies: Mapping[str, Tally]) -> Range:
    """All judges work at once, each as fast as its limits and its answers allow."""
    by_judge: dict[int, list[str]] = {}
    for template in tallies:
        by_judge.setdefault(id(judges[template]), []).append(template)
    times = [_of_one(judges[names[0]], [tallies[name] for name in names]) for names in by_judge.values()]
    return Range(*(max((getattr(each, n) for each in times), default=0.0) for n in _NAMES))


def _of_one(judge: JudgeConfig, tallies: Sequence[Tally]) -> Range:
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


def _numbers(of: Line | StagePlan) -> dict[str, Any]:
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
