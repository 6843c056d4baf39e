"""The command `longreward`. Nothing heavy is imported before a subcommand needs it."""

import argparse
import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longreward.errors import ConfigError, LongRewardError
from longreward.flows.cli import benchmarks, preflight, reward_bench
from longreward.flows.cli import ledger as ledger_command
from longreward.flows.cli.options import add_settings, chosen_settings

if TYPE_CHECKING:
    from longreward.judge import Judge
    from longreward.params import Params
    from longreward.records import ScoredResponse
    from longreward.reward.score_files import ScoreReport

REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT)


def main(arguments: Sequence[str] | None = None, *, more: Sequence[Callable[[Any], None]] = ()) -> int:
    """Runs a subcommand, one of the library's or one that `more` adds to the parser's subcommands.

    Returns 0, 1 for an error (its text on stderr), 2 for wrong usage, 130 for Ctrl-C or SIGTERM, 141 where the reader
    of its output has gone, as `head` does.
    """
    parser = _parser(more)
    options = parser.parse_args(arguments)
    if options.run is None:
        parser.print_help()
        return 2
    _escape_what_cannot_be_shown()
    try:
        code = int(options.run(options))
        print(end="", flush=True)  # here, where a failure can be told
        return code
    except LongRewardError as error:
        print(f"longreward: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        _discard_output()
        return 141
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _discard_output()
            print("longreward: the output cannot be written: the disk is full", file=sys.stderr)
            return 1
        if error.errno in REFUSED and error.filename:
            print(f"longreward: {error.filename}: {error.strerror}; choose another place", file=sys.stderr)
            return 1
        raise
    except KeyboardInterrupt:
        print("longreward: stopped; the same command goes on from the judge's answers so far", file=sys.stderr)
        return 130


def _escape_what_cannot_be_shown() -> None:
    """A terminal of few characters, or bytes that are no text, must not cost the result."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """So that the interpreter's last flush does not fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser(more: Sequence[Callable[[Any], None]]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="longreward",
        description="Long-context models made better with AI feedback: rewards, preference pairs, DPO, evaluation.",
    )
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="")
    _add_score(commands)
    settings = commands.add_parser("params", help="every setting, its default and meaning, as Markdown")
    settings.set_defaults(run=_params)
    ledger_command.add(commands)
    preflight.add(commands)
    benchmarks.add(commands)
    reward_bench.add(commands)
    for add in more:
        add(commands)
    return parser


def _add_score(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    score = commands.add_parser(
        "score",
        help="score responses, from files in the published formats or one from the command line",
        description="Scores files (--data, --responses, --out) or prints the reward card of one response (--context, "
        "--query, --response). Settings are the paper's unless -S or --params says otherwise; "
        "the judge is the built-in offline stand-in unless judge.kind=http.",
        epilog="example: longreward score --data sft.jsonl --responses sampled_responses.jsonl "
        "--out scored_responses.jsonl -S judge.kind=http -S judge.base_url=http://localhost:8000/v1 "
        "-S judge.model=my-judge",
    )
    files = score.add_argument_group("files")
    files.add_argument("--data", type=Path, metavar="FILE", help="examples: idx, query, context")
    files.add_argument("--responses", type=Path, metavar="FILE", help='responses: idx "<example>-<n>", query, answer')
    files.add_argument("--out", type=Path, metavar="FILE", help="where the scored responses go")
    one = score.add_argument_group("one response")
    one.add_argument("--context", type=Path, metavar="FILE", help="a text file")
    one.add_argument("--query", metavar="TEXT")
    one.add_argument("--response", metavar="TEXT")
    add_settings(score, params="settings from a params.yaml")
    score.add_argument(
        "--ledger",
        type=Path,
        metavar="FILE",
        help="where the judge's answers are kept, so that nothing is asked twice "
        "(default: ledger.sqlite in $LONGREWARD_STATE or .longreward)",
    )
    score.set_defaults(run=_score)


def _params(options: argparse.Namespace) -> int:
    from longreward.params import parameters_page

    print(parameters_page(), end="")
    return 0


def _score(options: argparse.Namespace) -> int:
    files = {name: getattr(options, name) for name in ("data", "responses", "out")}
    one = {name: getattr(options, name) for name in ("context", "query", "response")}
    given = [name for name, value in {**files, **one}.items() if value is not None]
    if set(given) not in (set(files), set(one)):
        said = ", ".join(f"--{name}" for name in given) or "nothing"
        raise ConfigError(
            f"score needs --data, --responses and --out, or --context, --query and --response; got {said}"
        )
    import asyncio

    params = chosen_settings(options, default=None)
    ledger = options.ledger or ledger_command.default_ledger()
    scoring = _score_files(params, ledger, **files) if options.data else _score_one(params, ledger, **one)
    return asyncio.run(_until_terminated(scoring))


async def _until_terminated(scoring: Coroutine[Any, Any, int]) -> int:
    """SIGTERM ends it as Ctrl-C does: calls under way are cancelled and no half-written file stays behind."""
    import asyncio

    task = asyncio.current_task()
    assert task is not None, "a coroutine runs in a task"
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await scoring
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _score_files(params: "Params", ledger: Path, *, data: Path, responses: Path, out: Path) -> int:
    from longreward.judge import open_judge
    from longreward.planning.file_budget import scoring_budget
    from longreward.reward.score_files import score_files, sibling_path
    from longreward.utils.progress import log_progress_to_stderr, show_progress

    log_progress_to_stderr()
    with show_progress("scoring, prompts") as update:
        async with (
            scoring_budget(params, data=data, responses=responses, ledger=ledger) as budget,
            open_judge(params.judge, ledger=ledger, budget=budget) as judge,
        ):
            report = await score_files(
                judge, params.score, data=data, responses=responses, out=out, ledger=ledger, progress=update
            )
    answered = report.complete + report.incomplete + report.savings.responses
    print(f"{out}: {report.complete} of {answered} responses have all four scores (queries: {report.prompts})")
    _print_summary(report, judge)
    if (spent := budget.metrics().get("money")) and params.prices.models:
        print(f"cost: {spent:,.4f} {params.prices.currency}")
    if report.incomplete:
        print(f"{sibling_path(out, 'unscored')}: the other {report.incomplete}, each with its reasons")
    if spared := report.savings.figures():
        print(f"{sibling_path(out, 'unscored')}: {spared['not_needed']:.0f} that the pairs do not need, with bounds")
        print(
            f"saved: {spared['saved/questions']:.0f} questions, about {spared['saved/questions_estimated']:.0f} with "
            f"those on statements never listed (about {spared['saved/tokens_estimated']:.0f} tokens)"
        )
        for money in report.savings.money(params.price_of).values():
            print(f"  which is about {money:,.4f} {params.prices.currency}")
    report.require_scores(judge.name)
    return 0


def _print_summary(report: "ScoreReport", judge: "Judge") -> None:
    from longreward.judge import is_overloaded, request_summary

    for name, value in report.means().items():
        print(f"  {name:<14}{value:6.2f}")
    for dimension, count in report.unscored.items():
        if count:
            print(f"  {dimension} is unscored for {count}; the first: {report.reasons[dimension]}")
    figures = judge.metrics()
    if is_overloaded(figures):
        print(request_summary(judge.name, figures), file=sys.stderr)
    print(
        f"judge {judge.name}: {figures['calls']:.0f} calls, {figures['ledger_hits']:.0f} answered from the ledger, "
        f"{figures['shared']:.0f} shared, {figures['prompt_tokens']:.0f} + {figures['completion_tokens']:.0f} tokens"
    )


async def _score_one(params: "Params", ledger: Path, *, context: Path, query: str, response: str) -> int:
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
    with Budget(params.score.budget, params.prices) as budget:  # of this one response
        async with (
            open_judge(params.judge, ledger=ledger, budget=budget) as judge,
            Scorer(params.score, ledger=ledger) as scorer,
        ):
            scored = await scorer.score(judge, example, [answer])
    card = scored.responses[0]
    _print_card(card, judge.name)
    return 0 if any(verdict.score is not None for verdict in card.verdicts.values()) else 1


def _print_card(card: "ScoredResponse", judge: str) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    reward = "none: not all four are scored" if card.reward is None else f"{card.reward:.2f} of 10"
    table = Table(title=f"reward {reward}", caption=f"judge: {judge}", title_justify="left", caption_justify="left")
    table.add_column("dimension")
    table.add_column("score", justify="right")
    table.add_column("why", overflow="fold")
    for dimension, verdict in card.verdicts.items():
        score = "–" if verdict.score is None else f"{verdict.score:.2f}"
        why = verdict.reason or without_verdict(verdict.analysis or "")
        if verdict.statements:
            marks = {1.0: "supported", 0.5: "partly", 0.0: "unsupported", None: "unreadable"}
            why = "\n".join(f"{marks[s.support]}: {s.text}" for s in verdict.statements)
        table.add_row(dimension, score, escape(why))
    console = Console()
    with console.capture() as drawn:  # printed by print, which leaves a reader that went away to main
        console.print(table)
    print(drawn.get(), end="")


def without_verdict(analysis: str) -> str:
    """An analysis without the bracket that closes it: the score stands beside it in the table.

    >>> without_verdict("Short, but clear.\\n[[7]]\\n"), without_verdict("[[7]] is fair.")
    ('Short, but clear.', '[[7]] is fair.')
    """
    text = analysis.rstrip()
    if not text.endswith("]]"):
        return analysis
    before, _, inside = text[:-2].rpartition("[[")
    return analysis if "]" in inside or "[" in inside or not text.count("[[") else before.rstrip()


if __name__ == "__main__":
    sys.exit(main())
