"""The judge's check before it scores: once a configuration, its report with the run, binding where that is wanted."""

from longreward.judge_validation.gate import load_or_run_check, require_passed
from longreward.judge_validation.report import render_markdown
from longreward.tasks.stage import StageRun
from longreward.tasks.state import judge_checks, ledger


async def ensure_trusted(run: StageRun) -> None:
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
        ledger=ledger(),
        quick=config.quick,
        checking=lambda: run.log.info("checking the judge before it scores (judge.check)"),
    )
    run.tracked.text("judge-check.md", render_markdown(report, config))
    run.tracked.figures(report.figures(config))  # now: a stage that stops here reports nothing at its end
    for fault in report.faults(config):
        run.log.warning("the judge %s: %s", report.judge, fault)
    if config.gate == "require":
        require_passed(report, config)
