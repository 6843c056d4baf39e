"""The judge gives every response its four scores."""

from pathlib import Path

from longreward.judge import open_judge
from longreward.reward import open_scorer
from longreward.reward.score_files import read_scoring_items
from longreward.tasks.mlflow_samples import (
    SCORE_COLUMNS,
    TRACED,
    EvenlySpacedSample,
    TableSample,
    score_cells,
    scoring_trace,
)
from longreward.tasks.score_shards import require_scores, score_in_shards, score_with_workers, write_scored_files
from longreward.tasks.stage import StageRun, main, stage
from longreward.tasks.stage_judge import forecast_budget, report_judge, scoring_forecast, validate_judge
from longreward.tasks.state import ledger_file
from longreward.tasks.tracking.run import Span
from longreward.tasks.workers import open_workers


@stage
async def score(run: StageRun) -> None:
    """The judge gives every response its four scores."""
    # Not a parameter of this stage for DVC; but where pairs are given, data/sampled is empty, and that is a dependency.
    given = run.params.pair.method == "given"
    if given or run.params.score.strategy == "none":
        write_scored_files(Path("data/scored"), (), {})
        return
    if not run.params.pair.needs_scores:
        run.log.warning(
            "pair.method %s looks at no scores: with score.strategy none, the judge is asked for none here",
            run.params.pair.method,
        )
    await validate_judge(run)
    examples = read_scoring_items(Path("data/prepared/preference.jsonl"), Path("data/sampled/sampled_responses.jsonl"))
    async with (
        forecast_budget(run, run.params.score.budget, scoring_forecast(run, examples)) as budget,
        open_judge(run.params.judge, ledger=ledger_file(), budget=budget) as judge,
        open_scorer(run.params.score, ledger=ledger_file()) as scorer,
        open_workers(run.params, state=run.state, ledger=ledger_file()) as workers,
    ):
        run.tracked.tag({"judge": judge.name})
        if workers is None:
            scored = await score_in_shards("score", judge, examples, run.params.score, scorer=scorer, folder=run.state)
        else:
            scored = await score_with_workers("score", workers, examples, run.params, folder=run.state)
        run.report(scorer.metrics())
        report_judge(run, judge.name, judge.metrics() | (workers.figures() if workers is not None else {}))
    sample = TableSample(SCORE_COLUMNS, of=len(examples))
    traced = EvenlySpacedSample[Span](of=len(examples), limit=TRACED)
    passing = traced.passing(sample.passing(scored, score_cells), scoring_trace)
    report = write_scored_files(Path("data/scored"), passing, scorer.settings, weights=run.params.pair.weights)
    require_scores(run, report, judge.name, shards=["score"], usable=run.params.pair.needs_scores)
    run.report(report.metrics() | report.savings.money(run.params.price_of))
    if workers is not None:
        run.report(workers.figures())  # after those of this process's budget, which paid for nothing
    sample.keep(run.tracked, "scores.json")
    run.tracked.traces(traced.rows)


if __name__ == "__main__":
    main(score)
