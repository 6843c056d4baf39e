"""`longreward study`: LongReward against its baselines and ablations, over several seeds, in one command."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from longreward.study.arms import Cell, StudyPlan

FOLDER = Path("data/study")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    command = subparsers.add_parser(
        "study",
        help="LongReward against its baselines and ablations, over several seeds",
        description="Runs every arm for every seed, each as a DVC experiment with the stages that arms share computed "
        f"once, and writes what they show to {FOLDER} and to MLflow. Stopped, it goes on with the runs that are not "
        "there yet.",
        epilog="example: longreward study --arms longreward srm random --seeds 0 1 2 -S train.epochs=2 --name mine",
    )
    command.add_argument("--quick", action="store_true", help="one seed, four arms, little of all: shows that it works")
    command.add_argument("--name", help="what the runs' names begin with (default: study, or study-quick)")
    command.add_argument("--arms", nargs="+", metavar="ARM", help="only these")
    command.add_argument("--seeds", nargs="+", type=int, metavar="SEED")
    command.add_argument("--preset", metavar="NAME", help="a file of configs/, with its settings and benchmarks")
    command.add_argument(
        "-S", dest="overrides", action="append", default=[], metavar="section.key=value", help="a setting of all runs"
    )
    command.add_argument("--list", action="store_true", help="only say which runs there are and which are missing")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> NoReturn:
    from longreward.params import stage_names
    from longreward.study.arms import check_arm, plan_cells
    from longreward.tasks.experiments import Settings
    from longreward.tasks.flow_runner import run_as_program
    from longreward.tasks.study_runs import pending_cells

    size = _size(options)
    study = options.name or ("study-quick" if options.quick else "study")
    planned = plan_cells(size)
    for cell in planned:
        check_arm(cell.arm, Settings(_preset(options), cell.settings).check())
    missing = pending_cells(planned, study)
    done = len(planned) - len(missing)
    print(f"{study}: {len(size.arms)} arms, {len(size.seeds)} seeds, {len(planned)} runs, {done} of them there already")
    if options.list:
        for cell in planned:
            state = "missing" if cell in missing else "there  "
            print(f"  {state} {cell.run_name(study)}: {', '.join(cell.settings)}")
        raise SystemExit(0)
    stages = [name for name in stage_names() if name not in size.left_out]
    run_as_program(lambda: _finish(options, study, planned, missing, stages))


def _size(options: argparse.Namespace) -> "StudyPlan":
    from longreward.errors import ConfigError
    from longreward.study.arms import ARM_NAMES, list_arms, plan_study
    from longreward.tasks.experiments import Settings

    for name in options.arms or ():
        if name not in ARM_NAMES:
            raise ConfigError(f"there is no arm {name!r}; the arms are {', '.join(ARM_NAMES)}")
    first = next(
        arm for arm in list_arms() if arm.name in (options.arms or ARM_NAMES)
    )  # some settings suit some arms alone
    params = Settings(_preset(options), (*options.overrides, *first.settings)).check()
    size = plan_study(params, quick=options.quick)
    return replace(
        size,
        arms=tuple(options.arms or size.arms),
        seeds=tuple(options.seeds if options.seeds is not None else size.seeds),
        settings=(*size.settings, *options.overrides),
    )


def _preset(options: argparse.Namespace) -> Path | None:
    from longreward.params import preset_path

    return preset_path(options.preset) if options.preset else None


async def _finish(
    options: argparse.Namespace,
    study: str,
    planned: "Sequence[Cell]",
    missing: "Sequence[Cell]",
    stages: Sequence[str],
) -> "State[Any]":
    """Makes the missing runs one after the other, then tells what all of them show."""
    from prefect.states import Completed

    from longreward.flows.pipeline import shell_pipeline
    from longreward.params import parse_override, read_params
    from longreward.study.results import summarize_runs
    from longreward.tasks.study_runs import read_cells, study_parent_run, write_study

    with study_parent_run(study) as run:
        for cell in missing:
            asked: Any = shell_pipeline.with_options(flow_run_name=cell.run_name(study))(
                stages=list(stages),
                preset=options.preset,
                overrides=dict(parse_override(setting) for setting in cell.settings),
                return_state=True,
            )
            state: State[Any] = await asked
            if not state.is_completed():
                return state
        found = summarize_runs(read_cells(planned, study, registered_model=read_params().evaluate.registered_model))
        write_study(run, found, FOLDER, preset=options.preset)
    print((FOLDER / "study.md").read_text(encoding="utf-8"))
    return Completed(message=f"what {len(planned)} runs show is in {FOLDER}/study.md")
