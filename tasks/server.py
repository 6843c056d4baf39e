"""One Prefect server a state folder: found or started, shared by all who need it, ended when the last of them is gone.

A keeper process holds the server; whoever needs it leaves a lease (a file named after a process) and the keeper ends
a few seconds after the last leaseholder does, however that one ended. So a `dvc repro` of seven stages starts
one server and not seven (2.7 s each on two cores, 8.5 s on a new home, and three at once on a new home fail), a
pipeline and a `dvc repro` beside it share one, and a killed run leaves none behind.
"""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from longreward.errors import StateError
from tasks.owner import Owner, owner
from tasks.state import VARIABLE, locked, made, state_folder

START_LIMIT_S = 120.0
GRACE_S = 3.0  # for the server to take in the last events of a client that has just ended


def prefect_url(*, needed_by: Owner | None = None, port: int = 0) -> str:
    """The API's address: the configured one, or that of the server of this state folder, which is started if need be.

    The server stays while `needed_by` lives (by default: the `dvc` command above this process, else this process).
    `port` counts only where it is started here; 0 takes a free one. Raises StateError where it does not start.
    """
    from prefect.settings import PREFECT_API_URL

    if configured := PREFECT_API_URL.value():
        return str(configured)
    home = made(state_folder() / "prefect")
    with locked("prefect"):
        (made(home / "leases") / str(needed_by or owner())).touch()
        return _running(home) or _start(home, port)


def free_port(wanted: int) -> int:
    """The port where nobody listens on it, else any free one."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise StateError("no free port on 127.0.0.1")


def _running(home: Path) -> str | None:
    try:
        server = json.loads((home / "server.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return str(server["url"]) if Owner.read(server["keeper"]).alive else None


def _start(home: Path, port: int) -> str:
    log = home / "server.log"
    (home / "server.json").unlink(missing_ok=True)
    with log.open("wb") as output:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "tasks.server", "--port", str(port)],
            env={**os.environ, VARIABLE: str(state_folder())},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C is for the run; its last events still have to be taken in
        )
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and keeper.poll() is None:
        if url := _running(home):
            return url
        time.sleep(0.05)
    keeper.kill()
    keeper.wait()
    raise StateError(f"the Prefect server did not start; its last words are in {log}")


def keep(port: int) -> None:
    """Serves Prefect's API and UI on this machine alone until nobody holds a lease."""
    home = made(state_folder() / "prefect")
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        port = listener.getsockname()[1]
        url = f"http://127.0.0.1:{port}/api"
        os.environ |= {
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": url,
            "PREFECT_SERVER_API_HOST": "127.0.0.1",
            "PREFECT_SERVER_API_PORT": str(port),
        }
        asyncio.run(_serve(home, listener, url))


async def _serve(home: Path, listener: socket.socket, url: str) -> None:
    import uvicorn
    from prefect.server.api.server import create_app

    from tasks.owner import this_process

    settings = uvicorn.Config(create_app(final=True), log_level="warning", timeout_graceful_shutdown=2)
    server = uvicorn.Server(settings)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not serving.done():  # noqa: ASYNC110  # uvicorn gives no event
        await asyncio.sleep(0.02)
    note = home / f".server.json.{os.getpid()}"
    note.write_text(json.dumps({"url": url, "keeper": str(this_process())}), encoding="utf-8")
    note.replace(home / "server.json")
    needed = time.monotonic()
    while not serving.done():
        if _leases(home):
            needed = time.monotonic()
        elif time.monotonic() - needed > GRACE_S and _let_go(home):
            break
        await asyncio.sleep(0.5)
    server.should_exit = True
    await serving


def _let_go(home: Path) -> bool:
    """Takes the note away, so that the next client starts a server anew; not where one has just come."""
    with locked("prefect"):
        if _leases(home):
            return False
        (home / "server.json").unlink(missing_ok=True)
        return True


def _leases(home: Path) -> list[Path]:
    """The leases of processes that live; the others are removed."""
    held = []
    for lease in (home / "leases").iterdir():
        if Owner.read(lease.name).alive:
            held.append(lease)
        else:
            lease.unlink(missing_ok=True)
    return held


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=keep.__doc__)
    arguments.add_argument("--port", type=int, default=0)
    keep(arguments.parse_args().port)
