"""A stage's use of its judge: the check before it scores, the budget and forecast of its calls, the metrics."""

import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager

from longreward.errors import BudgetExceeded
from longreward.human_labels.gate import agreement_failures, agreement_metrics, check_labels
from longreward.human_labels.report import render_markdown as render_agreement
from longreward.judge import is_overloaded, request_summary
from longreward.judge.budget import Budget, BudgetConfig
from longreward.judge_validation.gate import load_or_run_check, require_passed
from longreward.judge_validation.report import render_markdown
from longreward.models.model_family import same_family_warnings
from longreward.planning.estimate import StagePlan, plan_scoring
from longreward.planning.plan import plan_project
from longreward.planning.render import format_needs, format_remaining
from longreward.reward import ScoredExample
from longreward.reward.panel_agreement import PanelAgreement, format_alphas
from longreward.tasks.score_shards import ScoringItem
from longreward.tasks.stage import StageRun
from longreward.tasks.state import judge_checks, ledger_file, project_path

FORECAST_PROMPTS, FORECAST_LIMIT_S = 200, 3.0
FORECAST_EVALUATION_PROMPTS = 10

Forecast = Callable[[], Awaitable[StagePlan]]


def warn_of_same_family(run: StageRun) -> None:
    """Log a warning for each judge that is of the policy's family."""
    judges = (judge.model or "" for judge, _ in run.params.judge.judges())
    for warning in same_family_warnings(run.params.policy, judges):
        run.log.warning("%s", warning)


def report_agreement(run: StageRun, scored: Iterable[ScoredExample]) -> Iterator[ScoredExample]:
    """Yield the examples unchanged, and report at the end how well the judges of a panel agree about them."""
    agreement = PanelAgreement()
    for example in scored:
        for response in example.responses:
            agreement.add(response)
        yield example
    run.log_metrics(agreement.metrics())
    if alphas := agreement.alphas():
        run.log.info("agreement of the panel, Krippendorff's alpha: %s", format_alphas(alphas))


async def validate_judge(run: StageRun) -> None:
    """Check the judge as `judge.check.gate` says; raises JudgeValidationError if it must pass and does not.

    The report of a configuration is kept, so each is checked once. The few calls of a check do not count towards
    `score.budget`.
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
    markdown, metrics, failures = render_markdown(report, config), report.metrics(config), report.failures(config)
    if config.labels is not None:
        run.log.info("comparing the judge with the human labels of %s (judge.check.labels)", config.labels)
        labels = await check_labels(
            project_path(config.labels), run.params.judge, run.params.score, ledger=ledger_file()
        )
        run.mlflow.log_text("human-labels.md", render_agreement(labels))
        metrics |= agreement_metrics(labels)
        failures += agreement_failures(labels, config)
    run.mlflow.log_text("judge-check.md", markdown)
    run.mlflow.log_metrics(metrics)  # now, since a failing stage logs nothing at its end
    for failure in failures:
        run.log.warning("the judge %s: %s", report.judge, failure)
    if config.gate == "require":
        require_passed(report.judge, failures)


@contextmanager
def stage_budget(run: StageRun, limits: BudgetConfig) -> Iterator[Budget]:
    """Open a budget for the judge's calls of this stage, counted over all tries with the same data and settings."""
    with Budget(limits, run.params.prices, file=run.state / "budget.json", name=f"{run.name}.budget") as budget:
        try:
            yield budget
        except BudgetExceeded:
            run.mlflow.log_metrics(run.metrics | budget.metrics())  # now, since a failing stage logs nothing at its end
            raise
        run.log_metrics(budget.metrics())


@asynccontextmanager
async def forecast_budget(
    run: StageRun, limits: BudgetConfig, forecast: Forecast, *, assumed: bool = False
) -> AsyncIterator[Budget]:
    """Open a `stage_budget`, and log how many calls the forecast expects.

    When the budget is exceeded, the error says what is done and what the rest needs, unless the forecast is about
    `assumed` responses, which do not exist yet.
    """
    with stage_budget(run, limits) as budget:
        expected = await forecast()
        run.log_metrics(expected.metrics())
        currency = run.params.prices.currency
        needs = format_needs(expected, currency)
        run.log.info("the judge's calls: about %s", needs)
        try:
            yield budget
        except BudgetExceeded as error:
            if assumed:
                remaining = f"at the start, all that was left was expected to need about {needs}"
            else:
                remaining = format_remaining(await forecast(), currency)
            raise BudgetExceeded(f"{error}. {remaining}") from None


async def scoring_forecast(run: StageRun, items: Sequence[ScoringItem]) -> StagePlan:
    """Forecast the scoring of these responses, from as many prompts as can be planned in a few seconds."""
    indices = random.Random(0).sample(range(len(items)), min(len(items), FORECAST_PROMPTS))
    return await plan_scoring(
        run.name,
        run.params.judge,
        run.params.score,
        run.params.prices,
        (items[index] for index in indices),
        ledger=ledger_file(),
        total_prompts=len(items),
        time_limit_s=FORECAST_LIMIT_S,
    )


async def evaluation_forecast(run: StageRun) -> StagePlan:
    """Forecast the scoring of answers that do not exist yet."""
    plan = await plan_project(
        run.params, ledger=ledger_file(), stages=("evaluate",), sample=FORECAST_EVALUATION_PROMPTS
    )
    return plan.stages[0]


def log_judge_metrics(run: StageRun, name: str, metrics: Mapping[str, float]) -> None:
    """Add a judge's metrics to the stage's, and log what its replies cost in requests, retries and timeouts."""
    run.log_metrics(metrics)
    run.log.log(logging.WARNING if is_overloaded(metrics) else logging.INFO, request_summary(name, metrics))
