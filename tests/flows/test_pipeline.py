"""The pipeline on a toy project: a real DVC repository, a real Prefect server, a real MLflow store."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName, LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun

ROOT = Path(__file__).resolve().parents[2]
GRAPH = """
stages:
  prepare:
    cmd: python toy.py prepare
    params: [policy, prepare]
    deps: [data/raw]
    outs: [data/prepared]
    metrics:
      - metrics/prepare.json: {cache: false}
    plots:
      - plots/prepare.csv: {cache: false}
  pair:
    cmd: python toy.py pair
    params: [pair]
    deps: [data/prepared]
    outs: [data/pairs]
    metrics:
      - metrics/pair.json: {cache: false}
"""
PARAMS = "policy: {base_model: none}\njudge: {}\nprepare: {}\npair: {}\n"


class Project:
    """A toy project in a folder of its own."""

    def __init__(self, folder: Path, server: str) -> None:
        self.folder = folder
        taken_over = {k: v for k, v in os.environ.items() if not k.startswith(("LONGREWARD_", "MLFLOW_", "DVC_"))}
        self.environment = {
            **taken_over,
            "PREFECT_API_URL": server,
            "PYTHONPATH": str(ROOT),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "COLUMNS": "200",
        }
        (folder / "data/raw").mkdir(parents=True)
        (folder / "dvc.yaml").write_text(GRAPH)
        (folder / "params.yaml").write_text(PARAMS)
        (folder / ".gitignore").write_text("/.longreward/\n")
        (folder / "toy.py").write_text((Path(__file__).parent / "toy.py").read_text())
        for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
            subprocess.run(command, cwd=folder, check=True)

    def write(self, text: str) -> None:
        raw = self.folder / "data/raw/text"
        raw.unlink(missing_ok=True)  # DVC may have made it a link into its cache
        raw.write_text(text)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        process = self.start(*arguments)
        words, _ = process.communicate(timeout=200)
        return process.returncode, words

    def pipeline(self, *arguments: str) -> tuple[int, str]:
        return self.run("flows.pipeline", *arguments)

    def repro(self) -> tuple[int, str]:
        return self.run("dvc", "repro")

    def figures(self, stage: str) -> dict[str, object]:
        found: dict[str, object] = json.loads((self.folder / f"metrics/{stage}.json").read_text())
        return found

    def statuses(self) -> set[str]:
        experiment = self.store.get_experiment_by_name("longreward")
        return {run.info.status for run in self.store.search_runs([experiment.experiment_id])}

    @property
    def store(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.folder / '.longreward/mlflow.db'}")


@pytest.fixture
def project(tmp_path: Path, pipeline_server: str) -> Project:
    return Project(tmp_path, pipeline_server)


async def flow_run(name: str) -> FlowRun:
    async with get_client() as client:
        (found,) = await client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name])))
    return found


def name_of(flow: str, words: str) -> str:
    """The run's name, from "Beginning flow run 'brave-otter' for flow 'pipeline'"."""
    (line,) = [line for line in words.splitlines() if line.endswith(f"for flow '{flow}'")]
    return line.rpartition(" run '")[2].partition("'")[0]


async def test_the_pipeline_and_dvc_agree_and_every_run_is_where_it_belongs(project: Project) -> None:
    project.write("ab")
    code, words = project.pipeline()
    assert code == 0, words
    assert (project.folder / "data/pairs/text").read_text() == "ABAB"
    assert (project.folder / "plots/prepare.csv").read_text() == "step,loss\n1.0,0.5\n"
    assert "mlflow ui --backend-store-uri" in words
    assert "core.autostage" not in words  # DVC's hints
    assert "dvc push" not in words

    assert project.repro()[1].count("didn't change, skipping") == 3  # the raw data and two stages
    code, again = project.pipeline()
    assert code == 0
    assert again.count("was up to date") == 2

    # Prefect: the stage's flow run lies under the pipeline's task, and the library's words reached it.
    pair = await flow_run(name_of("pair", words))
    async with get_client() as client:
        task = await client.read_task_run(pair.parent_task_run_id)
        logs = await client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[pair.id])))
    assert task.name == "pair"
    assert task.flow_run_id == (await flow_run(name_of("pipeline", words))).id
    assert "the library speaks" in [entry.message for entry in logs]

    # MLflow: children under the parent that is named as the Prefect run is; a later parent links the runs it skipped.
    figures = project.figures("prepare")
    stage = project.store.get_run(str(figures["mlflow_run"]))
    parent = project.store.get_run(str(figures["mlflow_parent"]))
    (later,) = [
        run
        for run in project.store.search_runs([parent.info.experiment_id])
        if run.info.run_name == name_of("pipeline", again)
    ]
    assert stage.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert stage.data.metrics["letters"] == 2.0
    curve = project.store.get_metric_history(stage.info.run_id, "loss")
    assert [(point.step, point.value) for point in curve] == [(1, 0.5)]
    assert stage.data.tags["dvc.data/raw"].endswith(".dir")
    assert parent.info.run_name == name_of("pipeline", words)
    assert parent.data.params["pair.min_scored"] == "5"
    assert later.data.metrics["prepare/letters"] == 2.0
    assert later.data.tags["longreward.stage.prepare"] == stage.info.run_id
    assert {run.info.status for run in (stage, parent, later)} == {"FINISHED"}


@pytest.mark.slow
def test_after_dvc_repro_the_pipeline_finds_nothing_to_do(project: Project) -> None:
    project.write("abc")
    assert project.run("dvc", "add", "data/raw")[0] == 0
    assert project.repro()[0] == 0
    parents = {str(project.figures(stage)["mlflow_parent"]) for stage in ("prepare", "pair")}
    assert len(parents) == 1  # one `dvc repro`, one experiment
    assert project.store.get_run(parents.pop()).info.status == "FINISHED"
    code, words = project.pipeline()
    assert code == 0
    assert words.count("was up to date") == 2


async def test_an_error_of_ours_is_its_message_and_the_stages_behind_it_are_not_reached(project: Project) -> None:
    project.write("bad")
    code, words = project.pipeline()
    assert code == 1
    assert "stage prepare failed: the text is bad; write another one" in words
    assert "Traceback" not in words
    assert words.count("write another one") == 2  # the stage's words, and the pipeline's
    run = await flow_run(name_of("pipeline", words))
    async with get_client() as client:
        from prefect.client.schemas.filters import FlowRunFilterId

        rows = await client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])))
    states = {row.name: row.state_name for row in rows}
    assert states["pair"] == "NotReached"


def test_an_unknown_stage_is_named_with_the_known_ones(project: Project) -> None:
    code, words = project.pipeline("--stages", "prepair")
    assert code == 1
    assert "unknown stage 'prepair'; the stages are prepare, pair" in words


@pytest.mark.slow
async def test_a_killed_stage_goes_on_without_redoing_its_finished_shards(project: Project) -> None:
    project.write("abKc")
    code, words = project.pipeline()
    assert code == 1
    assert (await flow_run(name_of("prepare", words))).state_name == "Crashed"
    assert "RUNNING" not in project.statuses()
    assert (project.folder / "worked").read_text() == "abK"
    code, words = project.pipeline()
    assert code == 0, words
    assert (project.folder / "worked").read_text() == "abKKc"
    assert (project.folder / "data/pairs/text").read_text() == "ABKCABKC"


@pytest.mark.slow
def test_a_judge_that_was_away_is_waited_for(project: Project) -> None:
    project.write("down")
    code, words = project.pipeline()
    assert code == 0, words
    assert (project.folder / "data/prepared/text").read_text() == "DOWN"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_pipeline_that_is_stopped_leaves_no_process_and_no_open_run(
    project: Project, number: signal.Signals, code: int
) -> None:
    project.write("aSb")
    running = project.start("flows.pipeline")
    worked = project.folder / "worked"
    while not (worked.exists() and worked.read_text() == "aS"):
        assert running.poll() is None
        time.sleep(0.1)
    family = psutil.Process(running.pid).children(recursive=True)
    assert len(family) >= 2  # dvc and the stage
    running.send_signal(number)
    running.communicate(timeout=30)
    assert running.returncode == code
    assert not alive(family)
    assert project.statuses() == {"KILLED"}


@pytest.mark.slow
async def test_a_pipeline_that_is_killed_outright_leaves_no_process_and_the_next_one_goes_on(project: Project) -> None:
    project.write("aSb")
    running = project.start("flows.pipeline")
    worked = project.folder / "worked"
    while not (worked.exists() and worked.read_text() == "aS"):
        assert running.poll() is None
        time.sleep(0.1)  # noqa: ASYNC251
    family = psutil.Process(running.pid).children(recursive=True)
    running.kill()
    words, _ = running.communicate(timeout=30)
    deadline = time.monotonic() + 20
    while alive(family) and time.monotonic() < deadline:
        time.sleep(0.1)  # noqa: ASYNC251
    assert not alive(family)
    project.write("ab")
    code, later = project.pipeline()
    assert code == 0, later
    assert (await flow_run(name_of("pipeline", words))).state_name == "Crashed"
    assert project.statuses() == {"KILLED", "FINISHED"}


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
