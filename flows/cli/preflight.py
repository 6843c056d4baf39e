"""`longreward preflight`: what a training will need, from settings, data and the model's config alone."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from longreward.flows.cli.options import add_settings_arguments, load_settings

if TYPE_CHECKING:
    from longreward.training.dpo import TrainConfig
    from longreward.training.estimate.training_estimate import Preference


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    command = subparsers.add_parser(
        "preflight",
        help="lengths and memory of a training, before it loads a model",
        description="Tells from the settings, the data and the model's config what a training will need: lengths, "
        "memory at its peak with every term of the sum. Loads no weights, so that it cannot tell the time, which a "
        "training measures when it starts. Exits with 1 where it cannot fit, and says what would.",
        epilog="example: longreward preflight --device H100 -S train.lora='{r: 64}' -S policy.dtype=bfloat16",
    )
    add_settings_arguments(command, params="settings (params.yaml)")
    command.add_argument("--stage", choices=("train", "sft"), default="train", help="which training (train)")
    command.add_argument("--model", metavar="MODEL", help="a folder or hub id (what the stage starts from)")
    command.add_argument("--data", type=Path, metavar="FILE", help="pairs or examples (the stage's)")
    command.add_argument(
        "--device", metavar="DEVICE", help="another than this machine's: H100, A100:40GB, cuda:80GB, cpu:64GB"
    )
    command.add_argument("--processes", type=int, metavar="N", help="so many devices (the settings', else 1)")
    command.add_argument("--json", action="store_true", help="the figures as JSON: bytes, tokens, steps")
    command.set_defaults(run=_preflight)


def _preflight(options: argparse.Namespace) -> int:
    import json

    from longreward.training.estimate.forecast import check_fits
    from longreward.training.estimate.memory import parse_device
    from longreward.training.estimate.training_estimate import look

    params = load_settings(options, default=Path("params.yaml"))
    train = options.stage == "train"
    device = parse_device(options.device) if options.device else None
    model, data = _start(train, params.policy.sft_model, params.policy.base_model)
    outlook = look(
        params.train if train else params.sft,
        params.policy,
        model=options.model or model,
        data=options.data or data,
        preference=_preference(params.train) if train else None,
        device=device,
        processes=options.processes,
    )
    print(json.dumps(outlook.found.figures(), indent=1) if options.json else "\n".join(outlook.lines()))
    check_fits(outlook.plan, outlook.found)
    return 0


def _preference(train: "TrainConfig") -> "Preference":
    from longreward.training.estimate.training_estimate import Preference

    return Preference(train.reference_batch, train.prefix_sharing, train.token_mismatch)


def _start(train: bool, sft_model: str | None, base_model: str) -> tuple[str, Path]:
    """What the stage starts from and trains on; before `sft` has run, `train` would start from a model of its shape."""
    if not train:
        return base_model, Path("data/prepared/sft.jsonl")
    made = Path("models/sft")
    return str(made) if made.is_dir() else sft_model or base_model, Path("data/pairs/preference_pairs.jsonl")
