"""The flow of a stage in this process, behind a proxy to the Prefect server that can be closed."""

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
from longreward.tasks.stage_metrics import read_report
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


class TcpProxy:
    """Forwards connections to a server until it is closed."""

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                self._open += [client, server]
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._forward, args=(source, target), daemon=True).start()

    @staticmethod
    def _forward(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(2**16):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@pytest.fixture
def project(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with one stage, under a run whose tracking server does not exist."""
    (workspace / "dvc.yaml").write_text(GRAPH)
    (workspace / "params.yaml").write_text("judge: {}\n")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{listener.getsockname()[1]}")
    monkeypatch.setenv(PARENT, "ab" * 16)
    monkeypatch.setenv(STAGE_EXIT, str(workspace / "outcome.json"))
    client.cache_clear()
    yield workspace
    client.cache_clear()


@pytest.fixture
def proxy(prefect_server: str) -> Iterator[TcpProxy]:
    parts = urlsplit(prefect_server)
    proxy = TcpProxy(str(parts.hostname), int(parts.port or 0))
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{proxy.port}{parts.path}"}):
        yield proxy


def pair_stage(proxy: TcpProxy, error: Exception | None = None) -> Flow[[], object]:
    @stage
    async def pair(run: StageRun) -> None:
        (run.state / "shard").write_text("done")
        run.mlflow.log_report("note.md", "pairs")
        proxy.close()
        if error:
            raise error
        run.log_metrics({"pairs": 3})

    return pair


async def test_stage_completes_without_servers(
    project: Path, proxy: TcpProxy, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        flow = pair_stage(proxy)
        state = await final_state.wait_for(lambda: _run_under_parent(flow))
    assert state.is_completed()
    report = read_report("pair")
    assert report is not None
    assert (report.metrics["pairs"], report.mlflow_run) == (3.0, "unknown")
    assert json.loads((project / "metrics/pair.json").read_text()) == {"pair/pairs": 3}
    outcome = pop_stage_exit(project / "outcome.json")
    assert outcome is not None
    assert outcome.state == "Completed"
    (folder,) = (state_folder() / "pair").iterdir()
    assert {path.name for path in folder.iterdir()} == {"shard", COMPLETE_MARK}
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
    assert "the end of the run could not be recorded in Prefect" in caplog.text


async def test_stage_exit_of_error_without_prefect(project: Path, proxy: TcpProxy) -> None:
    flow = pair_stage(proxy, ConfigError("no such key; use another one"))
    state = await final_state.wait_for(lambda: _run_under_parent(flow))
    assert state.is_failed()
    assert pop_stage_exit(project / "outcome.json") == StageExit("ConfigError", "no such key; use another one")
    assert pop_stage_exit(project / "outcome.json") is None
    assert list((state_folder() / "pair").glob(f"*/{COMPLETE_MARK}")) == []


async def test_stage_exit_of_unexpected_error(
    project: Path, prefect_server: str, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "close", lambda: None)
    flow = pair_stage(proxy, ValueError("a bug"))
    state = await final_state.wait_for(lambda: _run_under_parent(flow))
    outcome = pop_stage_exit(project / "outcome.json")
    assert state.is_failed()
    assert outcome is not None
    assert outcome.state == "Failed"
    assert "ValueError: a bug" in outcome.message
