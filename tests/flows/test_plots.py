"""DVC's plots of an evaluation, in the repository and in a new project."""

import csv
import json
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from longreward.flows import benchmark, evaluate
from longreward.tasks import evaluation_records
from longreward.tasks.new_project import PLOT_TEMPLATE, project_files
from longreward.tasks.stage import write_points

ROOT = Path(__file__).resolve().parents[2]


def plots(graph: str, stage: str) -> dict[str, dict[str, Any]]:
    entries = yaml.safe_load(graph)["stages"][stage]["plots"]
    return {path: settings for entry in entries for path, settings in entry.items()}


@pytest.mark.parametrize(
    ("stage", "columns", "out"),
    [
        ("evaluate", dict.fromkeys(evaluation_records.PLOTS, ("bar", "value")), evaluate.OUT),
        ("benchmark", {name: columns for name, (_, columns) in benchmark.PLOTS.items()}, benchmark.OUT),
    ],
)
def test_plots_match_dvc_yaml(
    stage: str, columns: dict[str, tuple[str, ...]], out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = plots((ROOT / "dvc.yaml").read_text(encoding="utf-8"), stage)
    assert set(settings) == {f"plots/{stage}-{name}.csv" for name in columns}
    monkeypatch.chdir(tmp_path)
    for name, of in columns.items():
        path = f"plots/{stage}-{name}.csv"
        write_points(Path(path), [], of)  # nothing measured: the header alone
        with open(path, encoding="utf-8") as file:
            assert {settings[path]["x"], settings[path]["y"]} <= set(next(csv.reader(file)))
        assert not Path(path).is_relative_to(out)  # git keeps it, for `dvc plots diff`


def test_plot_template_of_new_project() -> None:
    files = project_files("laptop")
    graph = files[PurePosixPath("dvc.yaml")].decode()
    assert {settings["template"] for settings in plots(graph, "evaluate").values()} == {PLOT_TEMPLATE}
    assert files[PurePosixPath(PLOT_TEMPLATE)] == (ROOT / PLOT_TEMPLATE).read_bytes()
    assert json.loads(files[PurePosixPath(PLOT_TEMPLATE)])["encoding"]["x"]["scale"] == {"zero": True}
