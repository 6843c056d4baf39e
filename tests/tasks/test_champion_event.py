"""The event of a new champion, and the automation of examples/ on a real Prefect server."""

import runpy
import time
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName

from longreward.tasks.champion_event import emit_champion_changed

EXAMPLE = Path(__file__).parents[2] / "examples/champion_automation.py"


@flow(name="pipeline")
def pipeline(name: str = "") -> None:
    """Stand for the deployed pipeline: only its runs matter here."""


@pytest.mark.usefixtures("prefect_server")
def test_automation_runs_benchmark_for_new_champion() -> None:
    pipeline.to_deployment("benchmark").apply()
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    runpy.run_path(str(EXAMPLE), run_name="__main__")  # replaces the first, which would start another run
    benchmark = DeploymentFilter(name=DeploymentFilterName(any_=["benchmark"]))
    with get_client(sync_client=True) as client:
        # The server may not have loaded the automation when the first event arrives.
        version = 0
        while not (runs := client.read_flow_runs(deployment_filter=benchmark)):
            version += 1
            emit_champion_changed("longreward", str(version), evaluation="run-2", previous="run-1")
            time.sleep(1)
        assert len(client.read_automations_by_name("Benchmark each new champion")) == 1
    assert runs[0].parameters["name"].startswith("benchmark-champion-")
