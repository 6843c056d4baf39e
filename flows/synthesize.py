"""Write questions with grounded answers from the user's own documents, if there are any."""

from pathlib import Path

from longreward.judge import open_judge
from longreward.reward import Scorer
from longreward.synthesis.synthesize import synthesize_files, write_empty_files
from longreward.tasks.stage import StageRun, main, stage
from longreward.tasks.stage_judge import log_judge_metrics, stage_budget
from longreward.tasks.state import ledger_file
from longreward.utils.progress import show_progress
from longreward.utils.token_spans import open_tokenizer

OUT = Path("data/synthesized")


@stage
async def synthesize(run: StageRun) -> None:
    """Write questions with grounded answers from the user's own documents, if there are any."""
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
            run.mlflow.set_tags({"judge": judge.name})
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
            log_judge_metrics(run, judge.name, judge.metrics())
            run.log_metrics(scorer.metrics() | report.metrics())


if __name__ == "__main__":
    main(synthesize)
