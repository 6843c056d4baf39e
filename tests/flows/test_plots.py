"""DVC's plots of an evaluation, in the repository and in a new project."""

import csv
import json
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml

from flows.evaluate import OUT, PLOTS, _write_points
from longreward.project.files import PLOT, project_files

ROOT = Path(__file__).resolve().parents[2]


def plots(graph: str) -> dict[str, dict[str, Any]]:
    entries = yaml.safe_load(graph)["stages"]["evaluate"]["plots"]
    return {path: settings for entry in entries for path, settings in entry.items()}


def test_the_graph_names_the_plots_that_the_stage_writes_with_their_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = plots((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    assert set(known) == {f"plots/evaluate-{name}.csv" for name in PLOTS}
    monkeypatch.chdir(tmp_path)
    for path, settings in known.items():
        _write_points(Path(path), [])  # nothing measured: the header alone
        with open(path, encoding="utf-8") as file:
            assert set(next(csv.reader(file))) == {settings["x"], settings["y"]}
        assert not Path(path).is_relative_to(OUT)  # git keeps it, for `dvc plots diff`


def test_a_new_project_has_the_template_that_its_graph_names_and_it_draws_from_zero() -> None:
    files = project_files("laptop")
    graph = files[PurePosixPath("dvc.yaml")].decode()
    assert {settings["template"] for settings in plots(graph).values()} == {PLOT}
    assert files[PurePosixPath(PLOT)] == (ROOT / PLOT).read_bytes()
    assert json.loads(files[PurePosixPath(PLOT)])["encoding"]["x"]["scale"] == {"zero": True}
