"""The result of a pipeline run as Markdown."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow_store import mlflow_store

from longreward.tasks.result_artifact import render_result
from longreward.tasks.tracking.history import TABLE
from longreward.tasks.tracking.run_hierarchy import PARENT, link_stage, parent_run, stage_run

FIGURE = "<svg xmlns='http://www.w3.org/2000/svg'/>"
LOCK = """schema: '2.0'
stages:
  pair:
    cmd: python -m longreward.flows.pair
    outs:
    - {path: data/pairs, md5: b607aa2dab21c0aa.dir}
    - {path: metrics/pair.json, md5: 92100ff7f3aa}
"""


@pytest.fixture
def run_id(tmp_path: Path) -> Iterator[str]:
    """Record a run with an evaluation, and return the id of its parent run."""
    (tmp_path / "dvc.yaml").write_text("stages: {pair: {cmd: x, outs: [data/pairs], metrics: [metrics/pair.json]}}")
    (tmp_path / "dvc.lock").write_text(LOCK)
    with mlflow_store(tmp_path) as patch:
        with parent_run("beta-0.3", {}) as parent:
            patch.setenv(PARENT, parent)
            with stage_run("evaluate", params={}, all_params={}, tags={}) as evaluation:
                evaluation.log_text("figures/gold.svg", FIGURE)
                evaluation.log_text("report.md", "# Report")
                evaluation.log_json(TABLE, {"rows": [], "sentence": "Learning is shown."})
            link_stage(parent, "evaluate", {}, stage_run_id=evaluation.id)
        yield parent


def test_result_has_links_figure_and_files(run_id: str) -> None:
    result = render_result(run_id, links="/longreward/mlflow", experiment="beta-0.3")
    assert result.startswith(f"[MLflow run](/longreward/mlflow/experiments/1/runs/{run_id}?")
    assert "[evaluation report](/longreward/mlflow/experiments/1/runs/" in result
    assert "/artifacts/report.md?workflowType=machine_learning)" in result
    assert "Learning is shown." in result
    assert f"](data:image/svg+xml;base64,{base64.b64encode(FIGURE.encode()).decode()})" in result
    assert "`dvc exp apply beta-0.3` restores them" in result
    assert "| `data/pairs` | `b607aa2dab` |" in result
    assert "metrics/pair.json" not in result
    assert "(#/" not in result


def test_result_without_valid_address_has_no_links(run_id: str) -> None:
    result = render_result(run_id, links=None, experiment=None)
    assert result.startswith(f"MLflow run `{run_id}`; `longreward serve` shows it")
    assert "](#" not in result
    assert "](/" not in result
