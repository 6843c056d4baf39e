"""Stores for MLflow: PostgreSQL and a tracking server with logins, each on a free port of this machine."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

USER, PASSWORD = "otter", "hunter2-sesame"
POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: "subprocess.Popen[bytes]", output: Path) -> None:
    """Wait until a server listens on the port."""
    while True:
        assert process.poll() is None, output.read_text(errors="replace")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)


@contextmanager
def postgres() -> Iterator[str]:
    """The address of an empty database, with its login; skips the test where PostgreSQL is not installed."""
    pytest.importorskip("psycopg")
    if POSTGRES is None and shutil.which("initdb") is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    binaries = POSTGRES or Path(str(shutil.which("initdb"))).parent
    is_root = os.geteuid() == 0  # which PostgreSQL refuses
    unprivileged = {"user": 65534, "group": 65534, "extra_groups": ()} if is_root else {}
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))  # pytest's own folders are closed to other users
    process = None
    try:
        (folder / "password").write_text(PASSWORD)
        output = (folder / "log").open("wb")
        if is_root:
            for path in (folder, folder / "password", folder / "log"):
                os.chown(path, 65534, 65534)
        port, data = free_port(), folder / "data"
        create = ["-D", data, "-U", USER, f"--pwfile={folder / 'password'}", "--auth=scram-sha-256", "--no-sync"]
        subprocess.run(
            [binaries / "initdb", *create], cwd=folder, check=True, stdout=output, stderr=output, **unprivileged
        )
        settings = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
        process = subprocess.Popen(
            [binaries / "postgres", "-D", data, "-p", str(port), *settings],
            cwd=folder,
            stdout=output,
            stderr=output,
            **unprivileged,
        )
        wait_for(port, process, folder / "log")
        yield f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{port}/postgres"
    finally:
        if process is not None:
            process.send_signal(signal.SIGINT)  # at SIGTERM it waits for its clients to go
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def mlflow_server(folder: Path, *, logins: bool = False) -> "Iterator[tuple[str, subprocess.Popen[bytes]]]":
    """Start a tracking server with a store in `folder`; yield its address and process. `logins`: requires a login."""
    if logins:
        pytest.importorskip("flask_wtf")
    folder.mkdir(parents=True)
    port = free_port()
    (folder / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/auth.db\nadmin_username = {USER}\n"
        f"admin_password = {PASSWORD}\nauthorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")} | {
        "HOME": str(folder),
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "for this test alone",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder}/runs.db",
        "MLFLOW_ARTIFACTS_DESTINATION": str(folder / "artifacts"),
    }
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    with (folder / "log").open("wb") as output:
        process = subprocess.Popen(
            [*command, *(["--app-name", "basic-auth"] if logins else [])],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_for(port, process, folder / "log")
        yield f"http://127.0.0.1:{port}", process
    finally:
        kill_server(process)


def kill_server(server: "subprocess.Popen[bytes]") -> None:
    """Kill the server and its workers."""
    with_workers = server.poll() is None
    if with_workers:
        os.killpg(server.pid, 9)
    server.wait()
