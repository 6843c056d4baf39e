"""Runs while the MLflow store is unavailable: they continue, and entries are sent later where possible."""

import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow_store import mlflow_store

from longreward.tasks.tracking import run
from longreward.tasks.tracking.outbox import RETRY_AFTER_S, Outbox, outbox
from longreward.tasks.tracking.run import UNKNOWN, Run
from longreward.tasks.tracking.run_hierarchy import PARENT, link_stage, log_model_run, parent_run, stage_run
from longreward.tasks.tracking.store import TrackingUnavailable, client


class Store:
    """A store that can be unavailable or refuse a call, and a clock."""

    def __init__(self) -> None:
        self.time = 100.0
        self.unavailable = False
        self.probes = 0
        self.received: list[int] = []

    def probe(self, uri: str) -> None:
        self.probes += 1
        if self.unavailable:
            raise TrackingUnavailable("no answer")

    def call(self, number: int, error: Exception | None = None) -> Callable[[], None]:
        def send() -> None:
            if self.unavailable:
                raise MlflowException("connection refused")
            if error:
                raise error
            self.received.append(number)

        return send


@pytest.fixture
def store(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    store = Store()
    monkeypatch.setattr("longreward.tasks.tracking.outbox.probe_store", store.probe)
    return store


def test_calls_queued_while_store_is_unavailable(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "longreward.tasks.tracking.outbox")
    queue = Outbox(clock=lambda: store.time)
    queue.send("one", store.call(1))
    store.unavailable = True
    queue.send("two", store.call(2))
    queue.send("three", store.call(3))
    assert (store.received, store.probes, queue.paused) == ([1], 1, True)
    store.time += RETRY_AFTER_S
    queue.flush()
    assert (store.received, store.probes, queue.paused) == ([1], 2, True)
    store.unavailable = False
    queue.send("four", store.call(4))
    assert store.received == [1]  # the pause is not over
    store.time += RETRY_AFTER_S
    queue.send("five", store.call(5))
    assert (store.received, queue.paused) == ([1, 2, 3, 4, 5], False)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "does not answer: MlflowException('connection refused'); the run goes on" in caplog.messages[0]


def test_refused_call_dropped(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    queue = Outbox(clock=lambda: store.time)
    queue.send("one", store.call(1, ValueError("too long")))
    queue.send("two", store.call(2))
    assert store.received == [2]
    assert caplog.messages == ["MLflow did not take one: ValueError('too long')"]


def test_busy_store_retried(store: Store) -> None:
    queue = Outbox(clock=lambda: store.time)
    busy = [MlflowException("locked", error_code=2)]  # TEMPORARILY_UNAVAILABLE
    assert busy[0].error_code == "TEMPORARILY_UNAVAILABLE"

    def call() -> None:
        if busy:
            raise busy.pop()
        store.received.append(1)

    queue.send("one", call)
    assert queue.paused
    store.time += RETRY_AFTER_S
    queue.flush()
    assert store.received == [1]


def test_last_flush_drops_and_logs_rest(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    queue = Outbox(clock=lambda: store.time)
    store.unavailable = True
    queue.send("one", store.call(1))
    store.unavailable = False
    queue.flush(last=True)
    assert store.received == [1]
    store.unavailable = True
    queue.send("two", store.call(2))
    queue.send("three", store.call(3))
    queue.flush(last=True)
    assert "2 entries, from two on, are not recorded there" in caplog.messages[-1]
    store.unavailable = False
    queue.flush(last=True)
    assert store.received == [1]


def test_call_may_send_another_call(store: Store) -> None:
    queue = Outbox(clock=lambda: store.time)

    def call() -> None:
        queue.send("two", store.call(2))
        store.received.append(1)

    queue.send("one", call)
    assert store.received == [1, 2]


@pytest.fixture
def missing_server(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the address of a tracking server that does not exist."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        uri = f"http://me:hunter2@127.0.0.1:{listening.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    client.cache_clear()
    yield uri
    client.cache_clear()


def test_run_does_not_start_without_tracking_server(missing_server: str) -> None:
    with pytest.raises(TrackingUnavailable) as refused, parent_run("otter", {}):
        raise AssertionError
    message = str(refused.value)
    assert "cannot be used: no answer" in message
    assert "start that server, or unset MLFLOW_TRACKING_URI to keep runs in this project" in message
    assert "\n" not in message
    assert "hunter2" not in message
    with (
        pytest.raises(TrackingUnavailable),  # the first stage of a bare `dvc repro`
        stage_run("sft", params={}, all_params={}, tags={}),
    ):
        raise AssertionError


def test_stage_continues_without_tracking_server(
    missing_server: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(PARENT, "ab" * 16)
    with stage_run("train", params={"train": {"n": 2}}, all_params={}, tags={"dvc.data": "aa.dir"}) as run:
        run.log_step(1, {"loss": 0.5})
        run.log_report("note.md", "much")
        run.log_table("pairs.json", {"columns": [], "data": []})
        assert log_model_run(run, "dpo", {"recall": 1.0}, tags={}) == UNKNOWN
        link_stage(run.parent or "", "train", {"loss": 0.5}, stage_run_id=UNKNOWN)
    assert run.id == UNKNOWN
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2  # at the first failure, and at the end
    assert "are not recorded there" in warnings[1]
    assert "hunter2" not in caplog.text


def test_queued_entries_sent_when_store_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with mlflow_store(tmp_path) as patch, parent_run("otter", {}) as parent:
        patch.setenv(PARENT, parent)
        real_client, unavailable, time = run.client, [True], [1000.0]

        def broken() -> MlflowClient:
            if unavailable:
                raise TrackingUnavailable("no answer")
            return real_client()

        patch.setattr(run, "client", broken)
        patch.setattr(outbox, "_clock", lambda: time[0])
        with stage_run("train", params={"train": {"n": 2}}, all_params={}, tags={}) as stage:
            for step in range(1200):
                stage.log_step(step, {"loss": 1 / (step + 1)})
            stage.log_text("report.md", "kept")
            assert stage.id == UNKNOWN
            unavailable.clear()
            time[0] += RETRY_AFTER_S
            stage.set_tags({"judge": "offline"})
            assert stage.id != UNKNOWN
        record = real_client().get_run(stage.id)
        assert (record.data.params, record.data.tags["judge"]) == ({"train.n": "2"}, "offline")
        assert record.info.status == "FINISHED"
        assert record.data.tags["mlflow.parentRunId"] == parent
        curve = real_client().get_metric_history(stage.id, "loss")
        assert [(point.step, point.value) for point in curve] == [(step, 1 / (step + 1)) for step in range(1200)]
        assert Path(real_client().download_artifacts(stage.id, "report.md")).read_text() == "kept"


def test_store_lost_before_run_is_created(tmp_path: Path) -> None:
    with mlflow_store(tmp_path) as patch:
        real_client = run.client()

        class Dead:
            def create_run(self, *args: object, **kwargs: object) -> None:
                raise MlflowException("connection refused\nby the server")

        patch.setattr(run, "client", Dead)
        with pytest.raises(TrackingUnavailable) as refused, parent_run("otter", {}):
            raise AssertionError
        assert str(refused.value).endswith("cannot be used: connection refused by the server")
        assert real_client.search_runs(["1"]) == []


def test_store_error_at_end_does_not_fail_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with mlflow_store(tmp_path) as patch:
        with parent_run("otter", {}) as parent:
            Run(parent).log_params({"n": 1})

            def broken() -> MlflowClient:
                raise MlflowException("the store fell over")

            patch.setattr(run, "client", broken)
            Run(parent).log_params({"n": 2})
        assert "MLflow did not take parameters: MlflowException('the store fell over')" in caplog.messages
