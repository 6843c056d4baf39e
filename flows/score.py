"""Score every response in four dimensions with the judge."""

from pathlib import Path

from longreward.judge import open_judge
from longreward.reward import open_scorer
from longreward.reward.score_files import read_scoring_items
from longreward.tasks.evidence_pages import log_stage_page
from longreward.tasks.mlflow_samples import (
    SCORE_COLUMNS,
    TRACES,
    EvenlySpacedSample,
    TableSample,
    score_row,
    scoring_trace,
)
from longreward.tasks.score_shards import require_scores, score_in_shards, score_with_workers, write_scored_files
from longreward.tasks.stage import StageRun, main, stage
from longreward.tasks.stage_judge import (
    forecast_budget,
    log_judge_metrics,
    report_agreement,
    scoring_forecast,
    validate_judge,
    warn_of_same_family,
)
from longreward.tasks.state import ledger_file
from longreward.tasks.tracking.prompt_registry import log_judge_prompts
from longreward.tasks.tracking.run import Span
from longreward.tasks.workers import open_workers
from longreward.utils.language import detect_language

PROMPTS, RESPONSES = Path("data/prepared/preference.jsonl"), Path("data/sampled/sampled_responses.jsonl")
OUT = Path("data/scored")


@stage
async def score(run: StageRun) -> None:
    """Score every response in four dimensions with the judge."""
    params = run.params
    # `pair` is no parameter of this stage in dvc.yaml; but with given pairs data/sampled, a dependency, is empty.
    if params.pair.method == "given" or params.score.strategy == "none":
        write_scored_files(OUT, (), {})
        return
    if not params.pair.needs_scores:
        run.log.warning(
            "pair.method %s uses no scores: with score.strategy none, this stage makes no judge calls",
            params.pair.method,
        )
    warn_of_same_family(run)
    await validate_judge(run)
    items = read_scoring_items(PROMPTS, RESPONSES)
    async with (
        forecast_budget(run, params.score.budget, lambda: scoring_forecast(run, items)) as budget,
        open_judge(params.judge, ledger=ledger_file(), budget=budget) as judge,
        open_scorer(params.score, ledger=ledger_file()) as scorer,
        open_workers(params, state=run.state, ledger=ledger_file()) as workers,
    ):
        run.mlflow.set_tags({"judge": judge.name})
        log_judge_prompts(run.mlflow, scorer.prompts, {detect_language(example.query) for example, _ in items})
        if workers is None:
            scored = await score_in_shards("score", judge, items, params.score, scorer=scorer, folder=run.state)
        else:
            scored = await score_with_workers("score", workers, items, params, folder=run.state)
        worker_metrics = workers.figures() if workers is not None else {}
        run.log_metrics(scorer.metrics())
        log_judge_metrics(run, judge.name, judge.metrics() | worker_metrics)
    table = TableSample(SCORE_COLUMNS)
    traces = EvenlySpacedSample[Span](limit=TRACES)
    records = report_agreement(run, traces.collect(table.collect(scored, score_row), scoring_trace))
    report = write_scored_files(OUT, records, scorer.settings, weights=params.pair.weights)
    require_scores(run, report, judge.name, shards=["score"], usable=params.pair.needs_scores)
    # The workers' metrics replace those of the budget of this process, which paid for nothing then.
    run.log_metrics(report.metrics() | worker_metrics)
    table.log(run.mlflow, "scores.json")
    run.mlflow.log_traces(traces.rows)
    log_stage_page(run, ["score"])


if __name__ == "__main__":
    main(score)
