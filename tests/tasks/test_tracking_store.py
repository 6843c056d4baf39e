"""Stores of runs and artifacts for each kind of `MLFLOW_TRACKING_URI`."""

import base64
import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_server import JsonHandler, http_server
from mlflow import MlflowClient
from mlflow_store import mlflow_store

from longreward.errors import ConfigError
from longreward.tasks.state import experiment_copies
from longreward.tasks.tracking import store
from longreward.tasks.tracking.run import Run
from longreward.tasks.tracking.run_hierarchy import find_or_create_parent, parent_run
from longreward.tasks.tracking.store import (
    TrackingUnavailable,
    absolute_uri,
    artifact_location,
    client,
    experiment_id,
    has_experiment,
    pin_locations,
    probe_store,
    store_uri,
)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("sqlite:///runs.db", "sqlite:////base/runs.db"),
        ("sqlite:///./a/../runs.db?timeout=9", "sqlite:////base/runs.db?timeout=9"),
        ("sqlite+pysqlite:///runs.db", "sqlite+pysqlite:////base/runs.db"),
        ("sqlite:////data/runs.db", "sqlite:////data/runs.db"),
        ("sqlite:///file:runs.db?uri=true", "sqlite:///file:/base/runs.db?uri=true"),
        ("./mlruns", "file:///base/mlruns"),
        ("my runs", "file:///base/my%20runs"),
        ("/data/mlruns", "file:///data/mlruns"),
        ("file:mlruns", "file:///base/mlruns"),
        ("file:./mlruns", "file:///base/mlruns"),
        ("file:///data/my%20runs", "file:///data/my%20runs"),
        ("postgresql://me:pw@db/runs", "postgresql://me:pw@db/runs"),
        ("http://host:5000", "http://host:5000"),
        ("s3://bucket/runs", "s3://bucket/runs"),
        ("databricks", "databricks"),
    ],
)
def test_absolute_uri(uri: str, expected: str) -> None:
    assert absolute_uri(uri, Path("/base")) == expected


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"])
def test_absolute_uri_memory_database(uri: str) -> None:
    with pytest.raises(ConfigError, match="which the stages of a run cannot share: name a file"):
        absolute_uri(uri, Path("/base"))


def test_relative_uri_starts_from_dvc_root(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", "/original")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs.db")
    assert store_uri() == "sqlite:////original/runs.db"


def test_artifact_location(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:pw@db/runs")
    assert artifact_location("mine") == (workspace / "state/mlartifacts").as_uri()
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", "artifacts")
    assert artifact_location("team/mine") == (workspace / "artifacts/team/mine").as_uri()
    monkeypatch.setenv("MLFLOW_DEFAULT_ARTIFACT_ROOT", "s3://bucket/root/")
    assert artifact_location("mine") == "s3://bucket/root/mine"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert artifact_location("mine") is None  # the server knows better


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:///runs.db",
        pytest.param("sqlite:///{root}/absolute.db", marks=pytest.mark.slow),
        pytest.param("./mlruns", marks=pytest.mark.slow),
        pytest.param("file:mlruns", marks=pytest.mark.slow),
    ],
)
def test_runs_of_private_copy_kept(tmp_path: Path, uri: str) -> None:
    with mlflow_store(tmp_path) as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        patch.setenv("MLFLOW_TRACKING_URI", uri.format(root=tmp_path))
        expected = store_uri()
        copy = experiment_copies() / "brave-otter"
        copy.mkdir(parents=True)
        pin_locations()
        patch.chdir(copy)
        assert store_uri() == os.environ["MLFLOW_TRACKING_URI"] == expected
        with parent_run("brave-otter", {"n": 1}) as parent:
            Run(parent).log_text("report.md", "kept")
        patch.chdir(tmp_path)
        shutil.rmtree(experiment_copies())
        store = MlflowClient(expected, expected)
        assert store.get_run(parent).data.params == {"n": "1"}
        assert Path(store.download_artifacts(parent, "report.md")).read_text() == "kept"


def test_deleted_experiment(tmp_path: Path) -> None:
    with mlflow_store(tmp_path) as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs.db")
        deleted = MlflowClient(store_uri(), store_uri()).create_experiment("longreward")
        MlflowClient(store_uri(), store_uri()).delete_experiment(deleted)
        for check in (client, has_experiment):  # `longreward doctor` uses the second
            with pytest.raises(TrackingUnavailable, match="'longreward' is deleted: restore it, or set MLFLOW_EXPERIM"):
                check()
        patch.setattr(store, "EXPERIMENT", "another")
        assert client().get_experiment(experiment_id()).artifact_location == (tmp_path / "state/mlartifacts").as_uri()


@pytest.mark.parametrize(
    ("module", "uri", "package"),
    [
        ("psycopg", "postgresql+psycopg://me:hunter2@db.example/runs", r"pip install 'longreward\[postgres\]'"),
        ("psycopg2", "postgresql+psycopg2://me:hunter2@db.example/runs", r"pip install 'longreward\[postgres\]'"),
        ("pymysql", "mysql+pymysql://me:hunter2@db.example/runs", r"pip install 'longreward\[mysql\]'"),
    ],
)
def test_missing_database_driver(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, module: str, uri: str, package: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setitem(sys.modules, module, None)  # as where it is not installed
    client.cache_clear()
    with pytest.raises(TrackingUnavailable, match=f"driver {module} is not installed.*{package}") as refused:
        client()
    assert "hunter2" not in str(refused.value)


def test_unreachable_database_hides_password(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql://me:hunter2@127.0.0.1:{port}/runs")
    client.cache_clear()
    with pytest.raises(TrackingUnavailable) as refused:
        client()
    assert f"store at postgresql://***@127.0.0.1:{port}/runs cannot be used: no answer" in str(refused.value)
    assert "start that database, or unset MLFLOW_TRACKING_URI" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_parent_record_has_no_password(tmp_path: Path) -> None:
    with mlflow_store(tmp_path) as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs.db?password=hunter2")
        run = find_or_create_parent({})
        assert find_or_create_parent({}) == run
        note = json.loads((tmp_path / "state/parent-run.json").read_text())
    assert note["store"] == f"sqlite:///{tmp_path}/runs.db?password=***"


class Login(JsonHandler):
    """As a tracking server with logins: `/health` needs none."""

    page = b'{"experiments": []}'

    def do_GET(self) -> None:
        right = base64.b64encode(b"me:hunter2").decode()
        authorized = self.path == "/health" or self.headers["Authorization"] == f"Basic {right}"
        self.send(self.page, 200 if authorized else 401)


@pytest.fixture
def with_login(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with http_server(Login) as url:
        yield url


@pytest.mark.parametrize("password", ["", "wrong-one"])
def test_probe_needs_login(with_login: str, monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    if password:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    with pytest.raises(TrackingUnavailable, match=r"it refuses the login \(401\); set MLFLOW_TRACKING_USERNAME and"):
        probe_store(with_login)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    probe_store(with_login)


def test_probe_other_server(with_login: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    monkeypatch.setattr(Login, "page", b"<html>Sign in</html>")
    with pytest.raises(TrackingUnavailable, match="what answers there is no MLflow server; check MLFLOW_TRACKING_URI"):
        probe_store(with_login)


def test_probe_timeout(workspace: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:  # accepts, and says nothing
        uri = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(TrackingUnavailable, match=r"cannot be used: no answer .*timed out"):
            probe_store(uri, timeout_s=0.2)
