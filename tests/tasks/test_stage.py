"""A stage's flow in this process, on a Prefect server that can be cut off."""

import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from prefect import Flow
from prefect.settings import PREFECT_API_URL, temporary_settings

from longreward.errors import ConfigError
from longreward.tasks.flow_runner import final_state
from longreward.tasks.stage import STAGE_EXIT, StageExit, StageRun, _run_under_parent, pop_stage_exit, stage
from longreward.tasks.state import COMPLETE_MARK, state_folder
from longreward.tasks.tracking.run_hierarchy import PARENT
from longreward.tasks.tracking.store import client

GRAPH = """
stages:
  pair:
    cmd: python -m longreward.flows.pair
    params: [pair]
    outs: [data/pairs]
    metrics: [{metrics/pair.json: {cache: false}}]
"""


class Cable:
    """Passes bytes between its own port and a server, until it is cut."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):  # cut
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._server)
                self._open += [near, far]
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    @staticmethod
    def _pass_on(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(2**16):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@pytest.fixture
def project(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with one stage, under a run on a tracking server that is gone."""
    (workspace / "dvc.yaml").write_text(GRAPH)
    (workspace / "params.yaml").write_text("judge: {}\n")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{listening.getsockname()[1]}")
    monkeypatch.setenv(PARENT, "ab" * 16)
    monkeypatch.setenv(STAGE_EXIT, str(workspace / "outcome.json"))
    client.cache_clear()
    yield workspace
    client.cache_clear()


@pytest.fixture
def cable(prefect_server: str) -> Iterator[Cable]:
    parts = urlsplit(prefect_server)
    cable = Cable(str(parts.hostname), int(parts.port or 0))
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{cable.port}{parts.path}"}):
        yield cable


def pair_stage(cable: Cable, error: Exception | None = None) -> Flow[[], object]:
    @stage
    async def pair(run: StageRun) -> None:
        (run.state / "shard").write_text("done")
        run.mlflow.log_report("note.md", "pairs")
        cable.cut()
        if error:
            raise error
        run.log_metrics({"pairs": 3})

    return pair


async def test_stage_completes_without_servers(project: Path, cable: Cable, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        flow = pair_stage(cable)
        state = await final_state.wait_for(lambda: _run_under_parent(flow))
    assert state.is_completed()
    figures = json.loads((project / "metrics/pair.json").read_text())
    assert (figures["pairs"], figures["mlflow_run"]) == (3.0, "unknown")
    outcome = pop_stage_exit(project / "outcome.json")
    assert outcome is not None
    assert outcome.state == "Completed"
    (folder,) = (state_folder() / "pair").iterdir()
    assert {path.name for path in folder.iterdir()} == {"shard", COMPLETE_MARK}
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
    assert "Prefect's server was not told that the run ended" in caplog.text


async def test_stage_exit_of_error_without_prefect(project: Path, cable: Cable) -> None:
    flow = pair_stage(cable, ConfigError("no such key; use another one"))
    state = await final_state.wait_for(lambda: _run_under_parent(flow))
    assert state.is_failed()
    assert pop_stage_exit(project / "outcome.json") == StageExit("ConfigError", "no such key; use another one")
    assert pop_stage_exit(project / "outcome.json") is None
    assert list((state_folder() / "pair").glob(f"*/{COMPLETE_MARK}")) == []


async def test_stage_exit_of_unexpected_error(
    project: Path, prefect_server: str, cable: Cable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cable, "cut", lambda: None)
    flow = pair_stage(cable, ValueError("a bug"))
    state = await final_state.wait_for(lambda: _run_under_parent(flow))
    outcome = pop_stage_exit(project / "outcome.json")
    assert state.is_failed()
    assert outcome is not None
    assert outcome.state == "Failed"
    assert "ValueError: a bug" in outcome.message
