"""The pipeline on a toy project: a real DVC repository, a real Prefect server, a real MLflow store."""

import asyncio
import re
import signal
import time
from pathlib import Path

import psutil
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterName,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun
from toy_project import ToyProject, running_processes

from longreward.tasks.stage_processes import forks_stages


@pytest.fixture
def project(tmp_path: Path, prefect_server: str) -> ToyProject:
    return ToyProject(tmp_path, prefect_server, modules=True)


async def read_flow_run(name: str) -> FlowRun:
    async with get_client() as client:
        (run,) = await client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name])))
    return run


def flow_run_name(flow: str, output: str) -> str:
    """Return the name of the run in "Beginning flow run 'brave-otter' for flow 'pipeline'"."""
    (line,) = [line for line in output.splitlines() if line.endswith(f"for flow '{flow}'")]
    return line.rpartition(" run '")[2].partition("'")[0]


async def test_pipeline_records_in_dvc_prefect_and_mlflow(project: ToyProject) -> None:
    project.write("ab")
    code, output = project.pipeline()
    assert code == 0, output
    assert (project.folder / "data/pairs/text").read_text() == "ABAB"
    assert (project.folder / "plots/prepare.csv").read_text() == "step,loss\n1.0,0.5\n"
    assert "mlflow ui --backend-store-uri" in output
    assert "core.autostage" not in output  # DVC's hints
    assert "dvc push" not in output

    assert list((project.folder / ".longreward/prepare").iterdir()) == []  # DVC has recorded it
    assert project.repro()[1].count("didn't change, skipping") == 3  # the raw data and two stages
    (project.folder / ".dvc/tmp/rwlock").write_text("")  # as a run leaves it that is killed while DVC writes there
    code, again = project.pipeline()
    assert code == 0
    assert again.count("was up to date") == 2
    code, unchanged = project.pipeline()
    assert code == 0
    assert unchanged.count("was up to date") == 2
    assert "Nothing to do" in unchanged
    assert "flow run" not in unchanged

    # The log: one line for each stage, and none of Prefect's for each task run.
    assert "stage 1 of 2: prepare done in " in output
    assert "stage 2 of 2: pair is up to date" in again
    assert "Completed()" not in output

    # Prefect: the stage's flow run lies under the pipeline's task, and and contains the log of the library.
    pair = await read_flow_run(flow_run_name("pair", output))
    async with get_client() as client:
        task = await client.read_task_run(pair.parent_task_run_id)
        logs = await client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[pair.id])))
    assert task.name == "pair"
    pipeline = await read_flow_run(flow_run_name("pipeline", output))
    assert task.flow_run_id == pipeline.id
    assert re.fullmatch(r"pipeline-\d{8}-\d{6}", pipeline.name)
    assert pair.name == f"pair {pipeline.name}"
    assert set((await task_run_states(pipeline)).values()) == {"Completed"}
    again_run = await read_flow_run(flow_run_name("pipeline", again))
    assert {(await task_run_states(again_run))[stage] for stage in ("prepare", "pair")} == {"Cached"}
    prepare = await read_flow_run(flow_run_name("prepare", output))
    assert set(await task_run_states(prepare)) == {"letters, shard 1 of 2", "letters, shard 2 of 2"}
    result = await read_result(pipeline)
    assert f"**{pipeline.name}** finished" in result
    assert f"(/longreward/mlflow/experiments/1/runs/{project.report('pair').mlflow_run}?" in result
    assert "| `data/pairs` | `" in result
    assert "the library speaks" in [entry.message for entry in logs]

    # MLflow: children under the parent that is named as the Prefect run is; a later parent links the runs it skipped.
    report = project.report("prepare")
    stage = project.store.get_run(report.mlflow_run)
    parent = project.store.get_run(report.mlflow_parent)
    (later,) = [
        run
        for run in project.store.search_runs([parent.info.experiment_id])
        if run.info.run_name == flow_run_name("pipeline", again)
    ]
    assert stage.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert stage.data.metrics["pairs"] == 2.0
    curve = project.store.get_metric_history(stage.info.run_id, "loss")
    assert [(point.step, point.value) for point in curve] == [(1, 0.5)]
    assert stage.data.tags["dvc.data/raw"].endswith(".dir")
    assert parent.info.run_name == flow_run_name("pipeline", output)
    assert parent.data.params["pair.min_scored"] == "5"
    assert later.data.metrics["prepare/pairs"] == 2.0
    assert later.data.tags["mlflow.longreward.stage.prepare"] == stage.info.run_id
    assert {run.info.status for run in (stage, parent, later)} == {"FINISHED"}


@pytest.mark.slow
def test_pipeline_after_dvc_repro(project: ToyProject) -> None:
    project.write("abc")
    assert project.run("dvc", "add", "data/raw")[0] == 0
    assert project.repro()[0] == 0
    parents = {project.report(stage).mlflow_parent for stage in ("prepare", "pair")}
    assert len(parents) == 1  # one `dvc repro`, one experiment
    assert project.store.get_run(parents.pop()).info.status == "FINISHED"
    code, output = project.pipeline()
    assert code == 0
    assert output.count("was up to date") == 2


async def read_result(run: FlowRun) -> str:
    async with get_client() as client:
        of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
        (artifact,) = await client.read_artifacts(flow_run_filter=of_run)
    assert (artifact.key, artifact.type) == ("result", "markdown")
    return str(artifact.data)


async def task_run_states(run: FlowRun) -> dict[str, str]:
    """Return the names of the states of a flow run's task runs, which the server records some seconds late."""
    async with get_client() as client:
        while True:
            rows = await client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])))
            if all(row.state is not None and row.state.is_final() for row in rows):
                return {row.name: row.state_name or "" for row in rows}
            await asyncio.sleep(0.2)


async def test_failed_stage_cancels_later_stages(project: ToyProject) -> None:
    project.write("bad")
    code, output = project.pipeline()
    assert code == 1
    assert "stage prepare failed: the text is bad; write another one" in output
    assert "Traceback" not in output
    assert output.count("write another one") == 3  # in the logs of the stage and of the pipeline, and at the end
    run = await read_flow_run(flow_run_name("pipeline", output))
    assert (await task_run_states(run))["pair"] == "NotReached"


def test_unknown_stage(project: ToyProject) -> None:
    code, output = project.pipeline("--stages", "prepair")
    assert code == 2
    assert "unknown stage 'prepair'; did you mean prepare? The stages are prepare, pair" in output


def test_missing_input_of_requested_stage(project: ToyProject) -> None:
    project.write("ab")
    code, output = project.pipeline("--stages", "pair")
    assert code == 1
    assert "stage pair needs data/prepared, an output of prepare, which is missing" in output
    assert "--stages prepare pair" in output
    assert "waits for the Prefect server" not in output  # reported before it is started
    assert "starts;" not in output


@pytest.mark.slow
async def test_killed_stage_keeps_finished_shards(project: ToyProject) -> None:
    project.write("abKc")
    code, output = project.pipeline()
    assert code == 1
    assert (await read_flow_run(flow_run_name("prepare", output))).state_name == "Crashed"
    assert "RUNNING" not in project.statuses()
    assert (project.folder / "worked").read_text() == "abK"
    code, output = project.pipeline()
    assert code == 0, output
    assert (project.folder / "worked").read_text() == "abKKc"
    assert (project.folder / "data/pairs/text").read_text() == "ABKCABKC"


@pytest.mark.slow
def test_unavailable_judge_retried_by_pipeline(project: ToyProject) -> None:
    project.write("down")
    code, output = project.pipeline()
    assert code == 0, output
    assert (project.folder / "data/prepared/text").read_text() == "DOWN"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_interrupted_pipeline_is_cancelled_and_next_run_continues(
    project: ToyProject, number: signal.Signals, code: int
) -> None:
    project.write("aSb")
    running = project.start("longreward.flows.cli.main", "run")
    worked = project.folder / "worked"
    while not (worked.exists() and worked.read_text() == "aS"):
        assert running.poll() is None
        time.sleep(0.1)  # noqa: ASYNC251
    children = psutil.Process(running.pid).children(recursive=True)
    assert len(children) >= 2  # dvc and the stage
    forked = [child for child in children if "longreward.tasks.fork_server" in child.cmdline()]
    assert len(forked) >= (3 if forks_stages() else 0)  # the server, dvc and the stage
    running.send_signal(number)
    output, _ = running.communicate(timeout=60)
    assert running.returncode == code
    assert not running_processes(children)
    assert "Traceback" not in output, output
    assert "Crash" not in output, output
    assert project.statuses() == {"KILLED"}
    pipeline = await read_flow_run(flow_run_name("pipeline", output))
    stage = await read_flow_run(flow_run_name("prepare", output))
    assert (pipeline.state_name, stage.state_name) == ("Cancelled", "Cancelled")
    assert await task_run_states(pipeline) == {
        "add raw data": "Completed",
        "prepare": "Cancelled",
        "pair": "NotReached",
    }
    assert sorted((await task_run_states(stage)).values()) == ["Cancelled", "Completed"]
    project.write("aSb"[:1] + "b")  # other data, so that no shard waits at S
    code, later = project.pipeline()
    assert code == 0, later  # no lock of DVC is left


@pytest.mark.slow
async def test_killed_pipeline_leaves_no_process_and_next_run_continues(
    project: ToyProject,
) -> None:
    project.write("aSb")
    running = project.start("longreward.flows.cli.main", "run")
    worked = project.folder / "worked"
    while not (worked.exists() and worked.read_text() == "aS"):
        assert running.poll() is None
        time.sleep(0.1)  # noqa: ASYNC251
    children = psutil.Process(running.pid).children(recursive=True)
    running.kill()
    output, _ = running.communicate(timeout=30)
    deadline = time.monotonic() + 20
    while running_processes(children) and time.monotonic() < deadline:
        time.sleep(0.1)  # noqa: ASYNC251
    assert not running_processes(children)
    project.write("ab")
    code, later = project.pipeline()
    assert code == 0, later
    assert (await read_flow_run(flow_run_name("pipeline", output))).state_name == "Crashed"
    assert project.statuses() == {"KILLED", "FINISHED"}
