"""A toy project: a DVC repository with an MLflow store and a Prefect server, and stages that take no time."""

import os
import signal
import subprocess
import sys
from contextlib import chdir, suppress
from pathlib import Path

import psutil
from mlflow import MlflowClient
from prefect.settings import PREFECT_API_AUTH_STRING

from longreward.tasks.prefect_server import PrefectServer
from longreward.tasks.stage_metrics import StageReport, read_report

ROOT = Path(__file__).resolve().parents[2]
RUN_TIMEOUT_S = 200
GRAPH = """
stages:
  prepare:
    cmd: python toy.py prepare
    params: [policy, prepare]
    deps: [data/raw]
    outs:
      - data/prepared
      - reports/prepare.json: {cache: false}
    metrics:
      - metrics/prepare.json: {cache: false}
    plots:
      - plots/prepare.csv: {cache: false}
  pair:
    cmd: python toy.py pair
    params: [pair]
    deps: [data/prepared]
    outs:
      - data/pairs
      - reports/pair.json: {cache: false}
    metrics:
      - metrics/pair.json: {cache: false}
"""
PARAMS = f"""policy: {{base_model: {ROOT / "models/tiny-base"}}}
judge: {{}}
prepare: {{source: data/raw/text.jsonl}}
pair: {{}}
"""


class ToyProject:
    """A project of two stages that take no time; `write` sets their raw data.

    With `modules` the commands of the stages are `python -m …` as in a real project, which a fork server can start.
    """

    def __init__(self, folder: Path, server: str, *, modules: bool = False) -> None:
        self.folder = folder
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("LONGREWARD_", "MLFLOW_", "DVC_"))}
        self.environment = {
            **inherited,
            **PrefectServer(server, PREFECT_API_AUTH_STRING.value()).environment,
            "PYTHONPATH": str(ROOT),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "COLUMNS": "200",
            "LONGREWARD_VERBOSE": "1",  # tests read names of flow runs from Prefect's lines
        }
        (folder / "data/raw").mkdir(parents=True)
        (folder / "dvc.yaml").write_text(GRAPH.replace("python toy.py ", "python -m toy_") if modules else GRAPH)
        for name in ("prepare", "pair"):
            main = f"from longreward.tasks.stage import main\nfrom toy import {name}\n\nmain({name})\n"
            (folder / f"toy_{name}.py").write_text(main)
        (folder / "params.yaml").write_text(PARAMS)
        (folder / ".gitignore").write_text("/.longreward/\n")
        (folder / "toy.py").write_text((Path(__file__).parent / "toy.py").read_text())
        for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
            subprocess.run(command, cwd=folder, check=True)

    def write(self, text: str) -> None:
        raw = self.folder / "data/raw/text.jsonl"
        raw.unlink(missing_ok=True)  # DVC may have replaced it by a link into its cache
        raw.write_text(text)

    def commit(self) -> None:
        """Commit all files that git does not ignore; raw data is added to DVC first, so that git ignores it."""
        git = ["git", "-c", "user.name=toy", "-c", "user.email=toy@localhost"]
        subprocess.run([sys.executable, "-m", "dvc", "add", "-q", "data/raw"], cwd=self.folder, check=True)
        subprocess.run([*git, "add", "-A"], cwd=self.folder, check=True)
        subprocess.run([*git, "commit", "-qm", "a commit"], cwd=self.folder, check=True)

    def checkout(self) -> dict[str, bytes]:
        """Return all files of the checkout without the state folder and the internal files of git and DVC."""
        hidden = {".longreward", ".git", ".dvc", "__pycache__"}
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in files
            if not hidden & set(path.relative_to(self.folder).parts)
        }

    def experiments(self) -> set[str]:
        """Return the names in `dvc exp list`."""
        command = [sys.executable, "-m", "dvc", "exp", "list", "--name-only"]
        listed = subprocess.run(command, cwd=self.folder, check=True, capture_output=True, text=True).stdout
        return {line.strip() for line in listed.splitlines() if line.startswith("\t")} or set(listed.split())

    def start(self, *arguments: str, module: bool = True) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, *(["-m"] if module else []), *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Under `nohup` SIGHUP is ignored, which the child would inherit.
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )

    def run(self, *arguments: str, module: bool = True) -> tuple[int, str]:
        process = self.start(*arguments, module=module)
        try:
            output, _ = process.communicate(timeout=RUN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            kill_tree(process)
            print(process.communicate()[0])  # pytest shows it with the failure
            raise
        return process.returncode, output

    def pipeline(self, *arguments: str) -> tuple[int, str]:
        return self.run("longreward.flows.cli.main", "run", *arguments)

    def repro(self) -> tuple[int, str]:
        return self.run("dvc", "repro")

    def report(self, stage: str) -> StageReport:
        with chdir(self.folder):
            report = read_report(stage)
        assert report is not None
        return report

    def statuses(self) -> set[str]:
        experiment = self.store.get_experiment_by_name("longreward")
        return {run.info.status for run in self.store.search_runs([experiment.experiment_id])}

    @property
    def store(self) -> MlflowClient:
        uri = self.environment.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.folder / '.longreward/mlflow.db'}"
        return MlflowClient(uri, uri)


def kill_tree(process: "subprocess.Popen[str]") -> None:
    """Kill a process and its descendants, some of which are in sessions of their own."""
    parent = psutil.Process(process.pid)
    for descendant in [*parent.children(recursive=True), parent]:
        with suppress(psutil.NoSuchProcess):
            descendant.kill()


def running_processes(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return the processes that still run."""
    return [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
