"""`longreward judge-check`: measure the judge's consistency, ranking of known answers and resistance to attacks."""

import argparse
from pathlib import Path

from longreward.flows.cli.options import add_settings_arguments, load_settings


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    command = subparsers.add_parser(
        "judge-check",
        help="check the judge's consistency, ranking of known answers and resistance to prompt injection",
        description="Checks the judge of params.yaml on built-in questions: repeated requests, right answers against "
        "damaged ones, and prompt injections. Replies are in the ledger, so that a repeated check sends no request. "
        "Exits with 1 if a result is below a threshold of judge.check.*; judge.check.gate runs this check before the "
        "score stage.",
        epilog="example: longreward judge-check -S judge.kind=openai -S judge.model=gpt-4o-2024-05-13 --quick",
    )
    add_settings_arguments(command, default="params.yaml, if it exists")
    command.add_argument("--quick", action="store_true", help="about 60 requests instead of about 400")
    command.add_argument("--again", action="store_true", help="repeat all requests, without the replies in the ledger")
    command.add_argument("--json", action="store_true", help="the report as JSON")
    command.set_defaults(run=_judge_check)


def _judge_check(options: argparse.Namespace) -> int:
    """Return 1 if the judge fails the check."""
    import asyncio
    import json
    import time

    from longreward.human_labels.gate import agreement_failures, check_labels
    from longreward.human_labels.report import render_markdown as render_agreement
    from longreward.human_labels.report import to_json
    from longreward.judge_validation.gate import load_or_run_check
    from longreward.judge_validation.report import render_markdown
    from longreward.tasks.state import judge_checks, ledger_file
    from longreward.utils.markdown_text import print_markdown
    from longreward.utils.progress import log_progress_to_stderr, show_progress

    default = Path("params.yaml") if Path("params.yaml").exists() else None
    params = load_settings(options, default=default)
    config = params.judge.check
    log_progress_to_stderr()
    with show_progress("verdicts") as progress:
        report = asyncio.run(
            load_or_run_check(
                params.judge,
                params.score,
                folder=judge_checks(),
                ledger=ledger_file(),
                quick=options.quick or config.quick,
                run_id=f"{time.time():.0f}" if options.again else None,
                progress=progress,
            )
        )
        labels = None
        if config.labels is not None:
            labels = asyncio.run(check_labels(config.labels, params.judge, params.score, ledger=ledger_file()))
    failures = report.failures(config) + (agreement_failures(labels, config) if labels else [])
    if options.json:
        result = {**report.model_dump(mode="json"), "failures": failures}
        print(json.dumps(result | ({"labels": to_json(labels)} if labels else {}), indent=1, ensure_ascii=False))
    else:
        print_markdown(render_markdown(report, config))
        if labels is not None:
            failed = "".join(f"- {failure}\n" for failure in agreement_failures(labels, config))
            heading = "\n## Thresholds of judge.check that are not reached\n\n" if failed else ""
            print_markdown(f"\n{render_agreement(labels)}{heading}{failed}")
    return 1 if failures else 0
