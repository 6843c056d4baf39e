"""The runs of a study: which exist already, what they measured, and one MLflow run above them."""

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
from longreward.tasks.experiments import experiment_names
from longreward.tasks.tracking.history import MEASURES, find_run, model_metrics, read_artifact
from longreward.tasks.tracking.run import Run
from longreward.tasks.tracking.run_hierarchy import STUDY, study_run
from longreward.utils.jsonl import open_atomic


def pending_cells(cells: Sequence[Cell], study: str) -> list[Cell]:
    """Return the cells without a DVC experiment."""
    names = experiment_names()
    return [cell for cell in cells if cell.run_name(study) not in names]


@contextmanager
def study_parent_run(study: str) -> Iterator[Run]:
    """Open the study's MLflow run, the same one at each try; pipeline runs that begin in the block are under it."""
    with study_run(study) as run:
        os.environ[STUDY] = run.id
        try:
            yield run
        finally:
            del os.environ[STUDY]


def read_cells(cells: Sequence[Cell], study: str, *, registered_model: str) -> list[RunResult]:
    """Return what each run measured, from MLflow. Raises ConfigError if a run has no evaluation."""
    results = []
    for cell in cells:
        name = cell.run_name(study)
        run = find_run(name, registered_model=registered_model)
        if run.evaluation is None:
            raise ConfigError(f"the run {name} has no evaluation: `dvc exp remove {name}`, and the study runs it again")
        measures = read_measures(read_artifact(run.evaluation, MEASURES), source=f"the measures of {name}")
        benchmarks = model_metrics(run.benchmarks) if run.benchmarks else {}
        results.append(RunResult(cell.arm.name, cell.seed, measures, benchmarks))
    return results


def write_study(run: Run, results: StudyResults, folder: Path, *, preset: str | None) -> None:
    """Write the report, the figures and the metrics to MLflow and to `folder`."""
    page = render_page(results, preset=preset)
    run.log_report("study.md", page)
    with open_atomic(folder / "study.md") as file:
        file.write(page)
    with open_atomic(folder / "study.json") as file:
        json.dump(results.as_json(), file, indent=1)
    for name, figure in render_plots(results).items():
        run.log_figure(f"figures/{name}", figure)
        figure.savefig(folder / name)
    for (arm, decoding), means in results.means.items():
        run.log_metrics({f"{arm}/{measure}/{decoding}": estimate.value for measure, estimate in means.items()})
