"""`longreward reward-bench`: agreement of the reward and its baselines with labelled preferences."""

import argparse
from pathlib import Path

from longreward.errors import DataError
from longreward.flows.cli.options import (
    add_ledger_argument,
    add_settings_arguments,
    default_ledger,
    load_settings,
)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    command = subparsers.add_parser(
        "reward-bench",
        help="measure the reward's agreement with labelled preferences, with ablations of each dimension",
        description="Compares rewards with labelled preferences about long documents: LongReward, LongReward without "
        "each dimension, direct pairwise judging in both orders, and with --srm a reward model. Without files, it uses "
        "the built-in pairs and lists. The judge is the built-in offline judge unless -S or --params names another. "
        "Replies are stored in the ledger, so that a second run sends no requests.",
        epilog="example: longreward reward-bench --items labelled.jsonl -S judge.kind=vllm -S judge.model=my-judge",
    )
    files = command.add_mutually_exclusive_group()
    files.add_argument(
        "--items",
        type=Path,
        metavar="FILE",
        help="rows of id, context, query and responses, labels (or chosen, rejected)",
    )
    files.add_argument(
        "--long-rewardbench", type=Path, nargs="+", metavar="FILE", help="files of Long-RewardBench, one for each task"
    )
    command.add_argument(
        "--srm",
        nargs="?",
        const="",
        metavar="MODEL",
        help="also test a reward model: a folder or hub id; without a value the model of pair.srm, or a tiny one for "
        "the built-in corpus",
    )
    command.add_argument("--no-pairwise", action="store_true", help="skip direct pairwise judging")
    add_settings_arguments(command, default="the paper's settings")
    add_ledger_argument(command)
    command.add_argument("--json", action="store_true", help="all figures with their intervals, as JSON")
    command.set_defaults(run=_reward_bench)


def _reward_bench(options: argparse.Namespace) -> int:
    import asyncio
    import json
    from dataclasses import asdict

    from longreward.reward_bench.bench import run_bench
    from longreward.reward_bench.builtin_items import builtin_items
    from longreward.reward_bench.items import read_items, read_long_rewardbench
    from longreward.reward_bench.render import render_markdown
    from longreward.reward_bench.rewards import open_reward_model, score_with_reward_model
    from longreward.utils.markdown_text import print_markdown
    from longreward.utils.progress import log_progress_to_stderr, show_progress

    params = load_settings(options, default=None)
    if options.items:
        items = list(read_items(options.items))
    elif options.long_rewardbench:
        items = [item for file in options.long_rewardbench for item in read_long_rewardbench(file)]
    else:
        items = list(builtin_items())
    if not items:
        raise DataError(f"{options.items or options.long_rewardbench[0]}: no labelled items")
    log_progress_to_stderr()
    srm = None
    if options.srm is not None:
        model = open_reward_model(params.pair.srm, options.srm, state=default_ledger().parent)
        with show_progress("reward model, responses") as update:
            # Outside of asyncio, where Ctrl-C would wait for the end of this blocking call.
            srm = score_with_reward_model(model, items, progress=update)
    with show_progress("judge, items") as update:
        benchmark = run_bench(
            params,
            items,
            ledger=options.ledger,
            pairwise=not options.no_pairwise,
            srm=srm,
            progress=update,
        )
        result = asyncio.run(benchmark)
    if options.json:
        print(json.dumps(asdict(result), indent=1, ensure_ascii=False), end="")
    else:
        print_markdown(render_markdown(result))
    return 0
