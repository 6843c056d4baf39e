"""`longreward reward-bench`: how often the reward, and what it is compared with, says what labels say."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from longreward.errors import DataError
from longreward.flows.cli.ledger import default_ledger
from longreward.flows.cli.options import add_settings_arguments, load_settings

if TYPE_CHECKING:
    from longreward.reward_bench.items import Item

OF_SETTINGS = ""  # --srm without a name


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    command = subparsers.add_parser(
        "reward-bench",
        help="how good is the reward? agreement with labelled preferences, each dimension left out in turn",
        description="Holds rewards against labelled preferences about long documents: LongReward, it without each "
        "dimension, direct pairwise judging in both orders, and with --srm a reward model. Without files, against the "
        "built-in pairs and lists. The judge is the built-in offline stand-in unless -S or --params says otherwise. "
        "Answers are kept in the ledger, so that a second run asks nothing.",
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
        const=OF_SETTINGS,
        metavar="MODEL",
        help="a reward model too: a folder or hub id; without one, that of pair.srm, else a tiny one of the words of "
        "the built-in corpus",
    )
    command.add_argument("--no-pairwise", action="store_true", help="leave out direct pairwise judging")
    add_settings_arguments(command, params="settings from a params.yaml")
    command.add_argument(
        "--ledger",
        type=Path,
        metavar="FILE",
        help="where the judge's answers are kept (default: ledger.sqlite in $LONGREWARD_STATE or .longreward)",
    )
    command.add_argument("--json", action="store_true", help="every figure with its interval, as JSON")
    command.set_defaults(run=_reward_bench)


def _reward_bench(options: argparse.Namespace) -> int:
    import asyncio
    import json

    from longreward.reward_bench.bench import run_bench
    from longreward.reward_bench.render import as_json, render_markdown
    from longreward.reward_bench.rewards import open_reward_model, score_with_reward_model
    from longreward.utils.progress import log_progress_to_stderr, show_progress

    params = load_settings(options, default=None)
    ledger = options.ledger or default_ledger()
    items = _items(options)
    model = None
    if options.srm is not None:
        model = open_reward_model(params.pair.srm, options.srm, state=default_ledger().parent)
    log_progress_to_stderr()
    srm = None
    if model is not None:
        with show_progress("reward model, responses") as update:
            # Outside of asyncio, in which Ctrl-C would have to wait for its end.
            srm = score_with_reward_model(model, items, progress=update)
    with show_progress("judge, items") as update:
        measured = run_bench(
            params,
            items,
            ledger=ledger,
            pairwise=not options.no_pairwise,
            srm=srm,
            progress=update,
        )
        found = asyncio.run(measured)
    print(json.dumps(as_json(found), indent=1, ensure_ascii=False) if options.json else render_markdown(found), end="")
    return 0


def _items(options: argparse.Namespace) -> "list[Item]":
    from longreward.reward_bench.builtin_items import builtin_items
    from longreward.reward_bench.items import read_items, read_long_rewardbench

    if options.items:
        items = list(read_items(options.items))
    elif options.long_rewardbench:
        items = [item for file in options.long_rewardbench for item in read_long_rewardbench(file)]
    else:
        items = list(builtin_items())
    if not items:
        raise DataError(f"{options.items or options.long_rewardbench[0]}: there is no labelled item in it")
    return items
