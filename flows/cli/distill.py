"""`longreward distill`: train a reward model on the judge's scores."""

import argparse
from pathlib import Path
from typing import NoReturn

from longreward.errors import ConfigError
from longreward.flows.cli.options import add_settings_arguments, load_settings

DATA = Path("data/prepared/preference.jsonl")
SCORES = (Path("data/scored/scored_responses.jsonl"), Path("data/scored/unscored_responses.jsonl"))
OUT = Path("models/reward")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    command = subparsers.add_parser(
        "distill",
        help="train a reward model on the judge's scores, and test it on held-out documents",
        description="Trains a sequence classifier with one output on pairs of scored responses (TRL's RewardTrainer) "
        "and reports its agreement with the scores of held-out documents next to that of the length. The result is a "
        "model folder for pair.srm.model, best_of_n, online training and `longreward reward-bench`. "
        "If it is stopped, the same command continues from the last checkpoint.",
        epilog="example: longreward distill -S distill.base_model=org/model -S 'distill.lora={r: 16}'",
    )
    command.add_argument(
        "--scores",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="files of scored responses (default: those of the last score stage)",
    )
    command.add_argument(
        "--data", type=Path, default=DATA, metavar="FILE", help=f"the scored prompts (default: {DATA})"
    )
    command.add_argument(
        "--gold",
        type=Path,
        metavar="FILE",
        help="gold facts, to test against as well, and to train on with distill.labels: gold (default: evaluate.gold)",
    )
    command.add_argument("--out", type=Path, default=OUT, metavar="FOLDER", help=f"the model (default: {OUT})")
    add_settings_arguments(command, default="params.yaml, if it exists")
    command.set_defaults(run=_distill)


def _distill(options: argparse.Namespace) -> NoReturn:
    params_file = Path("params.yaml")
    params = load_settings(options, default=params_file if params_file.exists() else None)
    scores = options.scores or [file for file in SCORES if file.exists() and file.stat().st_size]
    if not scores:
        raise ConfigError(f"{SCORES[0]} does not exist: run the stages up to score first, or name files with --scores")
    gold = options.gold or (Path(params.evaluate.gold) if params.evaluate.gold else None)
    if gold is None and params.distill.labels == "gold":
        raise ConfigError("distill.labels is gold: name the file of gold facts with --gold or evaluate.gold")
    # Imported late: Prefect takes seconds.
    from longreward.flows.distill import AGREEMENT, DistillFiles, distill_flow
    from longreward.tasks.flow_runner import final_state, run_as_program
    from longreward.utils.markdown_text import print_markdown

    files = DistillFiles(options.data, tuple(scores), gold, options.out)
    flow = distill_flow(params, files)

    async def run():  # type: ignore[no-untyped-def]
        state = await flow(return_state=True)
        if state.is_completed():
            print_markdown((files.out / "README.md").read_text(encoding="utf-8"))
            print(f"{files.out}: the model; {files.out / AGREEMENT}: the agreement as data")
        return state

    run_as_program(lambda: final_state.wait_for(run))
