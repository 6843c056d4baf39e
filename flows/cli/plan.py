"""`longreward plan`: the requests, tokens, cost and time that scoring and evaluation still need."""

import argparse
from pathlib import Path

from longreward.flows.cli.options import (
    add_ledger_argument,
    add_settings_arguments,
    integer_between,
    load_settings,
)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    command = subparsers.add_parser(
        "plan",
        help="estimate the judge's requests, tokens, cost and time before the first request",
        description="Counts the requests that `score` and `evaluate` still need, from the existing data and the "
        "replies in the ledger. Prompts and responses that other stages will replace, and other unknown "
        "numbers, are estimated. No request is sent.",
        epilog="example: longreward plan -S 'prices.models={gpt-4o: {prompt: 2.5, completion: 10}}' "
        "-S judge.kind=openai -S judge.model=gpt-4o",
    )
    add_settings_arguments(command, default="params.yaml")
    command.add_argument("--stage", choices=("score", "evaluate"), help="only this stage")
    command.add_argument("--data", type=Path, metavar="FILE", help="with --responses: plan one `longreward score`")
    command.add_argument("--responses", type=Path, metavar="FILE", help="see --data")
    command.add_argument(
        "--sample", type=integer_between(1), metavar="N", help="examine N prompts of each stage and scale up"
    )
    command.add_argument(
        "--response-tokens",
        type=integer_between(1),
        metavar="N",
        help="length of responses that are not sampled yet (default: as those sampled so far, else half of "
        "sample.max_new_tokens)",
    )
    add_ledger_argument(command)
    command.add_argument("--json", action="store_true", help="as JSON")
    command.set_defaults(run=_plan)


def _plan(options: argparse.Namespace) -> int:
    import asyncio
    import json

    from longreward.errors import ConfigError
    from longreward.planning.plan import DATA_STAGES, STAGES, plan_files, plan_project
    from longreward.planning.render import print_plan
    from longreward.tasks.dvc_files import outdated_stages

    if (options.data is None) != (options.responses is None):
        raise ConfigError("plan needs both --data and --responses, or neither to plan this project's stages")
    # For files, the default settings apply, as for `longreward score`.
    params = load_settings(options, default=Path("params.yaml") if options.data is None else None)
    if options.data is not None:
        planning = plan_files(
            params, data=options.data, responses=options.responses, ledger=options.ledger, sample=options.sample
        )
    else:
        stages = (options.stage,) if options.stage else STAGES
        planning = plan_project(
            params,
            ledger=options.ledger,
            stages=stages,
            outdated=outdated_stages(params, DATA_STAGES) if Path("dvc.yaml").exists() else (),
            sample=options.sample,
            response_tokens=options.response_tokens,
        )
    plan = asyncio.run(planning)
    if options.json:
        print(json.dumps(plan.as_json(), indent=1, ensure_ascii=False))
    else:
        print_plan(plan)
    return 0
