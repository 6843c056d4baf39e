"""`longreward score`: score responses from files, or one response from the command line."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longreward.errors import ConfigError
from longreward.flows.cli.options import add_ledger_argument, add_settings_arguments, load_settings

if TYPE_CHECKING:
    from longreward.params import Params
    from longreward.records import ScoredResponse


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    score = subparsers.add_parser(
        "score",
        help="score responses from files in the published formats, or one from the command line",
        description="Scores files (--data, --responses, --out), or prints the scores of one response (--context, "
        "--query, --response). Settings are the paper's unless -S or --params changes them; the judge is the built-in "
        "offline judge unless judge.kind names another.",
        epilog="example: longreward score --data sft.jsonl --responses sampled_responses.jsonl "
        "--out scored_responses.jsonl -S judge.kind=http -S judge.base_url=http://localhost:8000/v1 "
        "-S judge.model=my-judge",
    )
    files = score.add_argument_group("files")
    files.add_argument("--data", type=Path, metavar="FILE", help="examples: idx, query, context")
    files.add_argument("--responses", type=Path, metavar="FILE", help='responses: idx "<example>-<n>", query, answer')
    files.add_argument("--out", type=Path, metavar="FILE", help="the file of scored responses to write")
    single = score.add_argument_group("one response")
    single.add_argument("--context", type=Path, metavar="FILE", help="a text file")
    single.add_argument("--query", metavar="TEXT")
    single.add_argument("--response", metavar="TEXT")
    add_settings_arguments(score, default="the paper's settings")
    add_ledger_argument(score)
    score.set_defaults(run=_score)


def _score(options: argparse.Namespace) -> int:
    files = {name: getattr(options, name) for name in ("data", "responses", "out")}
    single = {name: getattr(options, name) for name in ("context", "query", "response")}
    used = [name for name, value in {**files, **single}.items() if value is not None]
    if set(used) not in (set(files), set(single)):
        names = ", ".join(f"--{name}" for name in used) or "neither"
        raise ConfigError(
            f"score needs --data, --responses and --out, or --context, --query and --response; got {names}"
        )
    params = load_settings(options, default=None)
    score = _score_files if options.data else _score_response
    arguments = files if options.data else single
    return asyncio.run(_interrupt_on_sigterm(score(params, options.ledger, **arguments)))


async def _interrupt_on_sigterm(scoring: Coroutine[Any, Any, int]) -> int:
    """Handle SIGTERM like Ctrl-C: requests are cancelled and no incomplete file is left."""
    task = asyncio.current_task()
    assert task is not None, "a coroutine runs in a task"
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await scoring
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _score_files(params: "Params", ledger: Path, *, data: Path, responses: Path, out: Path) -> int:
    from longreward.judge import is_overloaded, open_judge, request_summary
    from longreward.planning.file_budget import scoring_budget
    from longreward.reward.panel_agreement import panel_agreement
    from longreward.reward.score_files import score_files, sibling_path
    from longreward.utils.progress import log_progress_to_stderr, show_progress

    log_progress_to_stderr()
    async with (
        scoring_budget(params, data=data, responses=responses, ledger=ledger) as budget,
        open_judge(params.judge, ledger=ledger, budget=budget) as judge,
    ):
        with show_progress("scoring, prompts", detail=judge.count_replies) as update:
            report = await score_files(
                judge, params.score, data=data, responses=responses, out=out, ledger=ledger, progress=update
            )
    total = report.complete + report.incomplete + report.bounded
    print(f"{out}: {report.complete} of {total} responses have all scores (queries: {report.prompts})")
    for name, value in report.means().items():
        print(f"  {name:<14}{value:6.2f}")
    for dimension, count in report.unscored.items():
        if count:
            print(f"  {dimension} is unscored for {count}; the first: {report.reasons[dimension]}")
    if params.judge.has_panel and (agreement := panel_agreement(out, sibling_path(out, "unscored"))):
        print(f"agreement of the panel, Krippendorff's alpha: {agreement}")
    figures = judge.metrics()
    if is_overloaded(figures):
        print(request_summary(judge.name, figures), file=sys.stderr)
    print(
        f"judge {judge.name}: {figures['calls']:.0f} calls, {figures['ledger_hits']:.0f} answered from the ledger, "
        f"{figures['shared']:.0f} shared, {figures['prompt_tokens']:.0f} + {figures['completion_tokens']:.0f} tokens"
    )
    if (spent := budget.metrics().get("money")) and params.prices.models:
        print(f"cost: {spent:,.4f} {params.prices.currency}")
    if report.incomplete:
        print(f"{sibling_path(out, 'unscored')}: the other {report.incomplete}, with the reasons")
    if report.saved_requests:
        print(f"{sibling_path(out, 'unscored')}: {report.bounded} not needed for pairs, with bounds of scores")
        print(f"saved: at least {report.saved_requests} requests")
    report.require_scores(judge.name)
    return 0


async def _score_response(params: "Params", ledger: Path, *, context: Path, query: str, response: str) -> int:
    from longreward.errors import DataError
    from longreward.judge import open_judge
    from longreward.judge.budget import Budget
    from longreward.records import Example, Response
    from longreward.reward import Scorer

    if not query.strip():
        raise ConfigError("--query is empty")
    try:
        text = context.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{context} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{context} is not UTF-8 (byte 0x{error.object[error.start]:02x} at {error.start})") from error
    if not text.strip():
        raise DataError(f"{context} is empty")
    example = Example(id="0", document_id=context.name, context=text, query=query)
    answer = Response(id="0-0", example_id="0", query=query, text=response)
    with Budget(params.score.budget, params.prices) as budget:
        async with (
            open_judge(params.judge, ledger=ledger, budget=budget) as judge,
            Scorer(params.score, ledger=ledger) as scorer,
        ):
            scored = await scorer.score(judge, example, [answer])
    result = scored.responses[0]
    _print_scores(result, judge.name)
    return 0 if any(verdict.score is not None for verdict in result.verdicts.values()) else 1


def _print_scores(scored: "ScoredResponse", judge: str) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    reward = "none: not all dimensions are scored" if scored.reward is None else f"{scored.reward:.2f} of 10"
    table = Table(title=f"reward {reward}", caption=f"judge: {judge}", title_justify="left", caption_justify="left")
    table.add_column("dimension")
    table.add_column("score", justify="right")
    table.add_column("reason", overflow="fold")
    for dimension, verdict in scored.verdicts.items():
        score = "–" if verdict.score is None else f"{verdict.score:.2f}"
        reason = verdict.reason or without_verdict(verdict.analysis or "")
        if verdict.statements:
            labels = {1.0: "supported", 0.5: "partly", 0.0: "unsupported", None: "unreadable"}
            reason = "\n".join(f"{labels[s.support]}: {s.text}" for s in verdict.statements)
        table.add_row(dimension, score, escape(reason))
    console = Console()
    with console.capture() as capture:  # `print` raises BrokenPipeError, which `main` handles; rich hides it
        console.print(table)
    print(capture.get(), end="")


def without_verdict(analysis: str) -> str:
    """Return an analysis without its final bracket, since the table has the score in its own column.

    >>> without_verdict("Short, but clear.\\n[[7]]\\n"), without_verdict("[[7]] is fair.")
    ('Short, but clear.', '[[7]] is fair.')
    """
    text = analysis.rstrip()
    if not text.endswith("]]"):
        return analysis
    before, _, inside = text[:-2].rpartition("[[")
    return analysis if "]" in inside or "[" in inside or not text.count("[[") else before.rstrip()
