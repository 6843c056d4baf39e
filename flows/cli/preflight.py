"""`longreward preflight`: lengths and memory of a training, from settings, data and the model's config."""

import argparse
import textwrap
from pathlib import Path

from longreward.flows.cli.options import add_settings_arguments, load_settings
from longreward.utils.console import output_width


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    command = subparsers.add_parser(
        "preflight",
        help="lengths and memory of a training, before it loads a model",
        description="Estimates from the settings, the data and the model's config what a training needs: lengths, peak "
        "memory and the part of it that does not depend on the batch. Loads no weights. Exits with 1 where that part "
        "does not fit, and lists what needs less.",
        epilog="example: longreward preflight --device cuda:80GB -S train.lora='{r: 64}' -S policy.dtype=bfloat16",
    )
    add_settings_arguments(command, default="params.yaml")
    command.add_argument("--stage", choices=("train", "sft"), default="train", help="which training (train)")
    command.add_argument("--model", metavar="MODEL", help="a folder or hub id (default: what the stage starts from)")
    command.add_argument("--data", type=Path, metavar="FILE", help="pairs or examples (default: those of the stage)")
    command.add_argument("--device", metavar="DEVICE", help="another than this machine's: cuda:80GB, cpu:64GB")
    command.add_argument("--processes", type=int, metavar="N", help="number of devices (the settings', else 1)")
    command.add_argument("--json", action="store_true", help="print JSON: bytes, tokens, steps")
    command.set_defaults(run=_preflight)


def _preflight(options: argparse.Namespace) -> int:
    import json

    from longreward.training.estimate.memory import check_fits, parse_device
    from longreward.training.estimate.training_estimate import estimate_training

    params = load_settings(options, default=Path("params.yaml"))
    train = options.stage == "train"
    if train:  # before `sft` has run, the base model stands in for its result
        model = "models/sft" if Path("models/sft").is_dir() else params.policy.sft_model or params.policy.base_model
        data = Path("data/pairs/preference_pairs.jsonl")
    else:
        model, data = params.policy.base_model, Path("data/prepared/sft.jsonl")
    estimate = estimate_training(
        params.train if train else params.sft,
        params.policy,
        model=options.model or model,
        data=options.data or data,
        token_mismatch=params.train.token_mismatch if train else None,
        device=parse_device(options.device) if options.device else None,
        processes=options.processes,
    )
    if options.json:
        print(json.dumps(estimate.metrics(), indent=1))
    else:
        for line in (*estimate.data_lines(), *estimate.memory_lines()):
            print(textwrap.fill(line, output_width(), subsequent_indent="  ", break_on_hyphens=False))
    check_fits(estimate.shape, estimate.memory, estimate.device)
    return 0
