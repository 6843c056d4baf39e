"""`longreward plan`: what scoring and evaluating will ask of the judge: calls, tokens, money, time."""

import argparse
from pathlib import Path

from longreward.flows.cli.ledger import default_ledger
from longreward.flows.cli.options import add_settings_arguments, load_settings


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    command = subparsers.add_parser(
        "plan",
        help="what the judge will cost: calls, tokens, money and time, before the first call",
        description="Counts what `score` and `evaluate` still have to ask of the judge, from the data that is "
        "there and the answers in the ledger. Nobody is asked. What is not known yet is estimated, with a range.",
        epilog="example: longreward plan -S 'prices.models={gpt-4o: {prompt: 2.5, completion: 10}}' "
        "-S judge.kind=openai -S judge.model=gpt-4o",
    )
    add_settings_arguments(command, params="settings (params.yaml)")
    command.add_argument("--stage", choices=("score", "evaluate"), help="only this one")
    command.add_argument("--data", type=Path, metavar="FILE", help="with --responses: plan one `longreward score`")
    command.add_argument("--responses", type=Path, metavar="FILE", help="see --data")
    command.add_argument("--sample", type=_count, metavar="N", help="look at N prompts of each stage and scale up")
    command.add_argument("--ledger", type=Path, metavar="FILE", help="the judge's answers so far (the state folder's)")
    command.add_argument("--json", action="store_true", help="as JSON")
    command.set_defaults(run=_plan)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _plan(options: argparse.Namespace) -> int:
    import asyncio
    import json

    from longreward.errors import ConfigError
    from longreward.planning.plan import STAGES, plan_files, plan_project
    from longreward.planning.render import print_plan

    if (options.data is None) != (options.responses is None):
        raise ConfigError("plan needs --data and --responses together, or neither: then it plans this project's stages")
    # of files, the defaults do, as for `longreward score`
    params = load_settings(options, default=Path("params.yaml") if options.data is None else None)
    ledger = options.ledger or default_ledger()
    if options.data is not None:
        planning = plan_files(
            params, data=options.data, responses=options.responses, ledger=ledger, sample=options.sample
        )
    else:
        stages = (options.stage,) if options.stage else STAGES
        planning = plan_project(params, ledger=ledger, stages=stages, sample=options.sample)
    plan = asyncio.run(planning)
    if options.json:
        print(json.dumps(plan.as_json(), indent=1, ensure_ascii=False))
    else:
        print_plan(plan)
    return 0
