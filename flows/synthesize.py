"""Questions with grounded answers from documents of the user's own, where there are any."""

from pathlib import Path

from longreward.judge import open_judge
from longreward.reward import Scorer
from longreward.synthesis.synthesize import synthesize_files, write_empty_files
from longreward.tasks.stage import StageRun, main, stage
from longreward.tasks.stage_judge import report_judge, stage_budget
from longreward.tasks.state import ledger_file
from longreward.utils.progress import show_progress
from longreward.utils.token_spans import open_tokenizer

OUT = Path("data/synthesized")


@stage
async def synthesize(run: StageRun) -> None:
    """Questions with grounded answers from documents of the user's own, where there are any."""
    params, config = run.params, run.params.synthesize
    if config.documents is None:
        write_empty_files(OUT)
        return
    tokenizer = open_tokenizer(params.score.tokenizer)
    with stage_budget(run, config.budget) as budget:
        async with (
            open_judge(
                params.judge, ledger=ledger_file(), budget=budget, writer=config.writer_config(params.judge)
            ) as judge,
            Scorer(params.score, ledger=ledger_file()) as scorer,
        ):
            run.tracked.tag({"judge": judge.name})
            with show_progress("synthesize, questions") as update:
                report = await synthesize_files(
                    judge,
                    scorer,
                    config,
                    root=Path(),
                    out=OUT,
                    tokenizer=tokenizer,
                    progress=lambda questions: update(questions, None),
                )
            report_judge(run, judge.name, judge.metrics())
            run.report(scorer.metrics() | report.metrics())


if __name__ == "__main__":
    main(synthesize)
