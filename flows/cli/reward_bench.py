"""`longreward reward-bench`: agreement of the reward and its baselines with labelled preferences."""

import argparse
import sys
from typing import TYPE_CHECKING

from longreward.errors import ConfigError
from longreward.flows.cli.options import (
    add_column_argument,
    add_ledger_argument,
    add_settings_arguments,
    default_ledger,
    integer_between,
    load_settings,
    parse_columns,
)
from longreward.flows.cli.parser import unknown_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from longreward.params import Params
    from longreward.records import OptionalDimension
    from longreward.reward_bench.item_files import ItemFiles
    from longreward.reward_bench.items import Item

PAIR_COLUMNS = ("idx", "prompt", "context", "chosen", "rejected")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    command = subparsers.add_parser(
        "reward-bench",
        help="measure the reward's agreement with labelled preferences, with ablations of each dimension",
        description="Compares rewards with labelled preferences: LongReward, LongReward without each dimension, each "
        "dimension alone, direct pairwise judging in both orders, the length of the responses, and with --reward-model "
        "a reward model. Reads the files of public sets and benchmarks (docs/reward-bench.md). Without files, it uses "
        "the built-in pairs and lists. The judge is the built-in offline judge unless -S or --params names another. "
        "Replies are stored in the ledger, so that a second run sends no requests.",
        epilog="example: longreward reward-bench --items labelled.jsonl -S judge.kind=vllm -S judge.model=my-judge",
    )
    command.add_argument(
        "--items", nargs="+", default=[], metavar="FILE", help="files, folders or globs: jsonl, json, csv or parquet"
    )
    command.add_argument(
        "--format",
        default="auto",
        metavar="NAME",
        help="judgebench, rewardbench-2, rm-bench, …; default: by the columns of the first row",
    )
    add_column_argument(command, "pairs", PAIR_COLUMNS)
    command.add_argument("--limit", type=integer_between(1), metavar="N", help="use N items, of all groups")
    command.add_argument(
        "--reward-model",
        nargs="?",
        const="",
        metavar="MODEL",
        help="also test a reward model: a folder or hub id; without a value the model of pair.srm, or a tiny one for "
        "the built-in corpus",
    )
    command.add_argument("--no-judge", action="store_true", help="only length and --reward-model")
    command.add_argument("--no-pairwise", action="store_true", help="skip direct pairwise judging")
    command.add_argument("--dry-run", action="store_true", help="print the estimated requests and cost, and stop")
    add_settings_arguments(command, default="the paper's settings")
    add_ledger_argument(command)
    command.add_argument("--json", action="store_true", help="all figures with their intervals, as JSON")
    command.set_defaults(run=_reward_bench)


def _reward_bench(options: argparse.Namespace) -> int:
    import asyncio
    import json
    from dataclasses import asdict

    from longreward.reward_bench.bench import run_bench
    from longreward.reward_bench.render import render_markdown
    from longreward.reward_bench.rewards import open_reward_model, score_with_reward_model
    from longreward.utils.markdown_text import print_markdown
    from longreward.utils.progress import log_progress_to_stderr, show_progress

    params = load_settings(options, default=None)
    files, items = _read_items(options, params.score.optional_dimensions)
    log_progress_to_stderr()
    if not options.no_judge and not _show_plan(options, params, items):
        return 0
    scores = None
    if options.reward_model is not None:
        model = open_reward_model(params.pair.srm, options.reward_model, state=default_ledger().parent)
        with show_progress("reward model, responses") as update:
            # Outside of asyncio, where Ctrl-C would wait for the end of this blocking call.
            scores = score_with_reward_model(model, items, progress=update)
    with show_progress("judge, items") as update:
        benchmark = run_bench(
            params,
            items,
            ledger=options.ledger,
            judged=not options.no_judge,
            pairwise=not options.no_pairwise,
            reward_model=scores,
            progress=update,
        )
        result = asyncio.run(benchmark)
    if options.json:
        rejected = [row.to_row() for row in files.rejected] if files else []
        print(json.dumps(asdict(result) | {"rejected": rejected}, indent=1, ensure_ascii=False), end="")
    else:
        print_markdown(render_markdown(result))
    return 0


def _read_items(
    options: argparse.Namespace, optional: "Sequence[OptionalDimension]"
) -> "tuple[ItemFiles | None, list[Item]]":
    """Return the items to use, with their files unless they are the built-in ones, which suit `optional` dimensions."""
    from longreward.data.preferences import PairsConfig
    from longreward.reward_bench.builtin_items import builtin_items
    from longreward.reward_bench.item_files import limit_items, read_item_files
    from longreward.reward_bench.public_formats import AUTO, FORMATS

    files, items = None, []
    if options.format not in (AUTO, *FORMATS):
        raise ConfigError(unknown_name("--format value", options.format, (AUTO, *FORMATS)))
    if options.items:
        columns = PairsConfig(**parse_columns(options.column, PAIR_COLUMNS))
        files = read_item_files(options.items, format_name=options.format, columns=columns)
        items = files.items
        if files.rejected:
            print(files.describe_rejected(), file=sys.stderr)
    elif options.column or options.format != AUTO:
        raise ConfigError("--format and --column describe files: name them with --items")
    else:
        items = list(builtin_items(optional=optional))
    return files, limit_items(items, options.limit) if options.limit else items


def _show_plan(options: argparse.Namespace, params: "Params", items: "list[Item]") -> bool:
    """Show what the judge's requests will cost before the first is sent; return whether to send them."""
    import asyncio

    from longreward.planning.file_budget import COUNTED_PROMPTS
    from longreward.planning.plan import plan_items
    from longreward.planning.render import format_needs, print_plan
    from longreward.reward_bench.items import to_records
    from longreward.reward_bench.rewards import LabelledItemScorer

    if params.judge.kind == "offline" and not options.dry_run:
        return True
    planning = plan_items(
        params,
        [to_records(item) for item in items],
        source=", ".join(options.items) or "the built-in items",
        make_scorer=LabelledItemScorer,
        pairwise=not options.no_pairwise,
        ledger=options.ledger,
        sample=COUNTED_PROMPTS,
    )
    plan = asyncio.run(planning)
    if options.dry_run:
        print_plan(plan)
        return False
    comparisons = "" if options.no_pairwise else f"; {plan.notes[-1]}"
    print(f"scoring needs {format_needs(plan.stages[0], plan.currency)}{comparisons}", file=sys.stderr)
    return True
