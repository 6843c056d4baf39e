"""The study's runs: which are there already, what they measured, and one MLflow run above them all."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from longreward.errors import ConfigError
from longreward.evaluation.example_metrics import read_measures
from longreward.study.arms import Cell
from longreward.study.page import render_page, render_plots
from longreward.study.results import RunResult, StudyResults
from longreward.tasks import tracking
from longreward.tasks.experiments import experiment_names
from longreward.tasks.tracking import history
from longreward.utils.jsonl import open_atomic


def pending_cells(cells: Sequence[Cell], study: str) -> list[Cell]:
    """Those of which there is no DVC experiment yet."""
    known = experiment_names()
    return [cell for cell in cells if cell.run_name(study) not in known]


@contextmanager
def study_parent_run(study: str) -> Iterator[tracking.Run]:
    """The study's own MLflow run, the same one at each try; runs that begin within lie below it."""
    with tracking.study_run(study) as run:
        os.environ[tracking.STUDY] = run.id
        try:
            yield run
        finally:
            del os.environ[tracking.STUDY]


def read_cells(cells: Sequence[Cell], study: str, *, registered_model: str) -> list[RunResult]:
    """What each run measured, from MLflow. Raises ConfigError where a run has no evaluation."""
    found = []
    for cell in cells:
        name = cell.run_name(study)
        run = history.find_run(name, registered_model=registered_model)
        if run.evaluation is None:
            raise ConfigError(f"the run {name} has no evaluation: `dvc exp remove {name}`, and the study runs it again")
        table = history.read_artifact(run.evaluation, history.MEASURES)
        benchmarks = history.model_metrics(run.benchmarks) if run.benchmarks else {}
        taken = read_measures(table, source=f"the measures of {name}")
        found.append(RunResult(cell.arm.name, cell.seed, taken, benchmarks))
    return found


def write_study(run: tracking.Run, outcome: StudyResults, folder: Path, *, preset: str | None) -> None:
    """The page, the pictures and the figures, in MLflow and in `folder`."""
    page = render_page(outcome, preset=preset)
    run.report("study.md", page)
    with open_atomic(folder / "study.md") as file:
        file.write(page)
    with open_atomic(folder / "study.json") as file:
        json.dump(outcome.as_json(), file, indent=1)
    for name, drawn in render_plots(outcome).items():
        run.text(f"figures/{name}", drawn)
        with open_atomic(folder / name) as file:
            file.write(drawn)
    for (arm, decoding), means in outcome.means.items():
        run.figures({f"{arm}/{measure}/{decoding}": each.value for measure, each in means.items()})
