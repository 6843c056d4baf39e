"""`longreward study`: compare LongReward with its baselines and ablations over several seeds."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from longreward.errors import UsageError
from longreward.flows.cli.options import add_override_argument
from longreward.flows.cli.parser import unknown_name
from longreward.flows.cli.run import flow_parameters
from longreward.utils.plurals import pluralize

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from longreward.study.arms import Cell, StudyPlan

FOLDER = Path("data/study")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand to the parser."""
    command = subparsers.add_parser(
        "study",
        help="compare LongReward with its baselines and ablations over several seeds",
        description="Runs every arm with every seed as a DVC experiment; stages that arms share are computed once. The "
        f"results are written to {FOLDER} and to MLflow. If it is stopped, the same command continues with the missing "
        "runs.",
        epilog="example: longreward study --arms longreward srm random --seeds 0 1 2 -S train.epochs=2 --name mine",
    )
    command.add_argument("--quick", action="store_true", help="a smoke test: one seed, four arms, little data")
    command.add_argument("--name", help="the prefix of the runs' names (default: study, or study-quick)")
    command.add_argument("--arms", nargs="+", metavar="ARM", help="only these arms")
    command.add_argument("--seeds", nargs="+", type=int, metavar="SEED")
    command.add_argument("--preset", metavar="NAME", help="a file of configs/, with its settings and benchmarks")
    add_override_argument(command)
    command.add_argument("--list", action="store_true", help="list the finished and the missing runs")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> NoReturn:
    from longreward.params import stage_names
    from longreward.study.arms import check_arm, plan_cells
    from longreward.tasks.experiments import Settings
    from longreward.tasks.flow_runner import run_as_program
    from longreward.tasks.study_runs import pending_cells

    plan = _plan_study(options)
    study = options.name or ("study-quick" if options.quick else "study")
    cells = plan_cells(plan)
    for cell in cells:
        check_arm(cell.arm, Settings(_preset_file(options), cell.settings).check())
    pending = pending_cells(cells, study)
    finished = len(cells) - len(pending)
    print(
        f"{study}: {pluralize(len(plan.arms), 'arm')}, {pluralize(len(plan.seeds), 'seed')}, "
        f"{pluralize(len(cells), 'run')}, {finished} of them finished"
    )
    if options.list:
        for cell in cells:
            state = "missing " if cell in pending else "finished"
            print(f"  {state} {cell.run_name(study)}: {', '.join(cell.settings)}")
        raise SystemExit(0)
    stages = [name for name in stage_names() if name not in plan.skipped_stages]
    run_as_program(lambda: _run_study(options, study, cells, pending, stages))


def _plan_study(options: argparse.Namespace) -> "StudyPlan":
    from longreward.study.arms import ARM_NAMES, list_arms, plan_study
    from longreward.tasks.experiments import Settings

    for name in options.arms or ():
        if name not in ARM_NAMES:
            raise UsageError(unknown_name("arm", name, ARM_NAMES))
    # With the settings of one of the arms, since some overrides are valid only together with an arm's settings.
    first = next(arm for arm in list_arms() if arm.name in (options.arms or ARM_NAMES))
    params = Settings(_preset_file(options), (*options.overrides, *first.settings)).check()
    plan = plan_study(params, quick=options.quick)
    return replace(
        plan,
        arms=tuple(options.arms or plan.arms),
        seeds=tuple(options.seeds if options.seeds is not None else plan.seeds),
        settings=(*plan.settings, *options.overrides),
    )


def _preset_file(options: argparse.Namespace) -> Path | None:
    from longreward.params import preset_path

    return preset_path(options.preset) if options.preset else None


async def _run_study(
    options: argparse.Namespace,
    study: str,
    cells: "Sequence[Cell]",
    pending: "Sequence[Cell]",
    stages: Sequence[str],
) -> "State[Any]":
    """Run the pending cells one after the other, then summarize all of them."""
    from prefect.states import Completed

    from longreward.flows.pipeline import shell_pipeline
    from longreward.params import read_params
    from longreward.study.results import summarize_runs
    from longreward.tasks.interruption import Interrupted, received_signal
    from longreward.tasks.study_runs import read_cells, study_parent_run, write_study
    from longreward.utils.markdown_text import print_markdown

    with study_parent_run(study) as parent:
        for cell in pending:
            parameters = flow_parameters(list(cell.settings), preset=options.preset)
            run: Any = shell_pipeline(**parameters, stages=list(stages), name=cell.run_name(study), return_state=True)
            state: State[Any] = await run
            if received_signal():
                raise Interrupted
            if not state.is_completed():
                return state
        model = read_params().evaluate.registered_model
        results = summarize_runs(read_cells(cells, study, registered_model=model))
        write_study(parent, results, FOLDER, preset=options.preset)
    print_markdown((FOLDER / "study.md").read_text(encoding="utf-8"))
    return Completed(message=f"the results of {len(cells)} runs are in {FOLDER}/study.md")
