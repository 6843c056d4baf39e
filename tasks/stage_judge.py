"""The judge's check before it scores: once a configuration, its report with the run, binding where that is wanted."""

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager

from longreward.errors import BudgetExceeded
from longreward.judge import is_overloaded, request_summary
from longreward.judge.budget import Budget, BudgetConfig
from longreward.judge_validation.gate import load_or_run_check, require_passed
from longreward.judge_validation.report import render_markdown
from longreward.planning.plan import StagePlan, plan_project, plan_scoring
from longreward.planning.render import format_needs, format_remaining
from longreward.tasks.score_shards import WithResponses
from longreward.tasks.stage import StageRun
from longreward.tasks.state import judge_checks, ledger_file


async def validate_judge(run: StageRun) -> None:
    """Does what `judge.check.gate` says; raises JudgeNotTrusted where it is `require` and the judge falls short.

    The calls of a check are not taken from `score.budget`: they are few, and made once for a judge and its prompts.
    """
    config = run.params.judge.check
    if config.gate == "off":
        return
    report = await load_or_run_check(
        run.params.judge,
        run.params.score,
        folder=judge_checks(),
        ledger=ledger_file(),
        quick=config.quick,
        on_start=lambda: run.log.info("checking the judge before it scores (judge.check)"),
    )
    run.tracked.text("judge-check.md", render_markdown(report, config))
    run.tracked.figures(report.metrics(config))  # now: a stage that stops here reports nothing at its end
    for failure in report.failures(config):
        run.log.warning("the judge %s: %s", report.judge, failure)
    if config.gate == "require":
        require_passed(report, config)


# What a stage may spend on its judge, what it is expected to spend, and what it says where it must stop.


Forecast = Callable[[], Awaitable[StagePlan]]


@asynccontextmanager
async def forecast_budget(
    run: StageRun, limits: BudgetConfig, forecast: Forecast, *, assumed: bool = False
) -> AsyncIterator[Budget]:
    """A budget for the judge's calls of this stage, counted over all tries with the same data and settings.

    The forecast and what was spent become figures of the run. Where the budget ends, so does the stage: BudgetReached
    then says what is done and what the rest needs, unless it is about `assumed` responses.
    """
    with stage_budget(run, limits) as budget:
        expected = await forecast()
        run.report(expected.metrics())
        currency = run.params.prices.currency
        needed = f"at the start, all that was left was expected to need about {format_needs(expected, currency)}"
        run.log.info("the judge's calls: about %s", format_needs(expected, currency))
        try:
            yield budget
        except BudgetExceeded as reached:
            left = needed if assumed else format_remaining(await forecast(), currency)
            raise BudgetExceeded(f"{reached}. {left}") from None


@contextmanager
def stage_budget(run: StageRun, limits: BudgetConfig) -> Iterator[Budget]:
    """A budget as `spending` gives, for calls of which nothing is known beforehand."""
    with Budget(limits, run.params.prices, file=run.state / "budget.json", name=f"{run.name}.budget") as budget:
        try:
            yield budget
        except BudgetExceeded:
            run.tracked.figures(run.figures | budget.metrics())  # now: a stage that stops reports nothing at its end
            raise
        run.report(budget.metrics())


def report_judge(run: StageRun, name: str, figures: Mapping[str, float]) -> None:
    """Adds a judge's figures to the stage's, and logs what its replies cost in requests, retries and time-outs."""
    run.report(figures)
    run.log.log(logging.WARNING if is_overloaded(figures) else logging.INFO, request_summary(name, figures))


def scoring_forecast(run: StageRun, items: Sequence[WithResponses]) -> Forecast:
    """Of these responses to these prompts, from as many of them as can be looked at in a few seconds."""

    async def forecast() -> StagePlan:
        places = random.Random(0).sample(range(len(items)), min(len(items), LOOKED_AT))
        params = run.params
        return await plan_scoring(
            run.name,
            params.judge,
            params.score,
            params.prices,
            (items[place] for place in places),
            ledger=ledger_file(),
            total_prompts=len(items),
            time_limit_s=LIMIT_S,
        )

    return forecast


def evaluation_forecast(run: StageRun) -> Forecast:
    """Of answers that are not there yet."""

    async def forecast() -> StagePlan:
        plan = await plan_project(
            run.params, ledger=ledger_file(), stages=("evaluate",), sample=LOOKED_AT_OF_EVALUATION
        )
        return plan.stages[0]

    return forecast


LOOKED_AT, LIMIT_S = 200, 3.0
LOOKED_AT_OF_EVALUATION = 10  # three times: with short, likely and long answers
