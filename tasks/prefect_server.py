"""One Prefect server a state folder: found or started, shared by all who need it, ended when the last of them is gone.

A keeper process holds the server; whoever needs it leaves a lease (a file named after a process) and the keeper ends
a few seconds after the last leaseholder does, however that one ended. So a `dvc repro` of seven stages starts
one server and not seven (2.7 s each on two cores, 8.5 s on a new home, and three at once on a new home fail), a
pipeline and a `dvc repro` beside it share one, and a killed run leaves none behind.

Whoever can call the API can start runs, so the server asks for a login and refuses requests of other web pages
(server_access.py).
"""

import argparse
import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from longreward.errors import ConfigError, LongRewardError, StateError
from longreward.tasks.processes import ProcessRef, parent_process
from longreward.tasks.server_access import (
    LOCALHOST,
    RequestGuard,
    allowed_hosts,
    auth_file,
    read_auth_string,
    write_private,
)
from longreward.tasks.state import STATE_VARIABLE, make_folder, state_folder, state_lock
from longreward.utils.redaction import redact

START_LIMIT = "LONGREWARD_PREFECT_START_LIMIT_S"
DEFAULT_START_LIMIT_S = 120.0
LOG_EVERY_S = 10.0
LOG_TAIL_BYTES = 2000
GRACE_S = 3.0  # for the server to take in the last events of a client that has just ended

log = logging.getLogger(__name__)


class PrefectUnavailable(LongRewardError):
    """The Prefect server cannot be reached, or refuses the login."""


@dataclass(frozen=True)
class PrefectServer:
    """The address of a Prefect API and the login that it asks for ("user:password"), if any."""

    url: str
    auth_string: str | None = field(default=None, repr=False)

    @property
    def settings(self) -> dict[Any, Any]:
        """For `prefect.settings.temporary_settings`."""
        from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL

        return {PREFECT_API_URL: self.url, PREFECT_API_AUTH_STRING: self.auth_string}

    @property
    def environment(self) -> dict[str, str]:
        """For child processes. The login must not be in their arguments, which all users of a machine can read."""
        login = {"PREFECT_API_AUTH_STRING": self.auth_string} if self.auth_string else {}
        return {"PREFECT_API_URL": self.url, **login}


def prefect_server(
    *, needed_by: ProcessRef | None = None, host: str = LOCALHOST, port: int = 0, allow: tuple[str, ...] = ()
) -> PrefectServer:
    """Return the configured Prefect server, or that of this state folder, which is started if it does not run.

    The server stays while `needed_by` lives (by default: the `dvc` command above this process, else this process).
    `host`, `port` and `allow` (more host names that clients may use) count only where the server is started here;
    port 0 takes a free one. Raises StateError where the server does not start, ConfigError for a wrong setting.
    """
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL

    if configured := PREFECT_API_URL.value():
        return PrefectServer(str(configured), PREFECT_API_AUTH_STRING.value() or None)
    home = make_folder(state_folder() / "prefect")
    with state_lock("prefect"):
        (make_folder(home / "leases") / str(needed_by or parent_process())).touch()
        return _running(home) or _start(home, host, port, allow)


def running_server() -> PrefectServer | None:
    """The server of this state folder, where one runs. None is started and no lease is left."""
    return _running(state_folder() / "prefect")


def login_file(server: PrefectServer) -> Path | None:
    """The file that holds the login of this state folder's server; None for any other server."""
    return auth_file(state_folder() / "prefect") if server == running_server() else None


async def check_server(server: PrefectServer) -> None:
    """Raise PrefectUnavailable, with what to do, where the server is away or refuses the login.

    The health check of Prefect's API needs no login, so this reads a flow.
    """
    import httpx
    from prefect import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import PREFECT_API_KEY, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    shown = redact(server.url)
    try:
        # The client retries for half a minute and logs each try; the first answer says it all.
        with temporary_settings({**server.settings, PREFECT_CLIENT_MAX_RETRIES: 0}):
            async with get_client() as client:
                await client.read_flows(limit=1)
    except PrefectHTTPStatusError as error:
        code = error.response.status_code
        if code not in (401, 403):
            raise PrefectUnavailable(
                f"the Prefect server at {shown} answers with HTTP {code}; check PREFECT_API_URL"
            ) from None
        if server.auth_string:
            name = "refuses the login in PREFECT_API_AUTH_STRING"
        elif PREFECT_API_KEY.value():
            name = "refuses the key in PREFECT_API_KEY"
        else:
            name = "asks for a login, and PREFECT_API_AUTH_STRING is not set"
        raise PrefectUnavailable(
            f"the Prefect server at {shown} {name} (HTTP {code}); set PREFECT_API_AUTH_STRING to the user:password "
            "that the server was started with"
        ) from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, RuntimeError) as error:
        reason = redact(" ".join(str(error).split())) or type(error).__name__
        raise PrefectUnavailable(
            f"the Prefect server at {shown} cannot be used: {reason}; start it, correct PREFECT_API_URL, or unset "
            "that to use a server of this project's own"
        ) from None


def free_port(wanted: int, host: str = LOCALHOST) -> int:
    """The port where nobody listens on it, else any free one."""
    for port in (wanted, 0):
        with _socket(host) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise StateError(f"no free port on {host}")


def check_port(port: int, host: str) -> None:
    """Raise ConfigError where nothing can listen there."""
    with _socket(host) as probe:
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror or error}") from None


def _socket(host: str) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return listener


def _running(home: Path) -> PrefectServer | None:
    try:
        server = json.loads((home / "server.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return PrefectServer(server["url"], server.get("auth_string")) if ProcessRef.read(server["keeper"]).alive else None


def _start(home: Path, host: str, port: int, allow: tuple[str, ...]) -> PrefectServer:
    limit_s = _start_limit_s()
    output_file = home / "server.log"
    (home / "server.json").unlink(missing_ok=True)
    with output_file.open("wb") as output:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "longreward.tasks.prefect_server", "--host", host, "--port", str(port)]
            + [word for name in allow for word in ("--allow-host", name)],
            env={**os.environ, STATE_VARIABLE: str(state_folder())},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C is for the run; its last events still have to be taken in
        )
    started = logged = time.monotonic()
    while (now := time.monotonic()) - started < limit_s and keeper.poll() is None:
        if server := _running(home):
            return server
        if now - logged >= LOG_EVERY_S:
            log.warning("the Prefect server is starting (%.0f of at most %g s)", now - started, limit_s)
            logged = now
        time.sleep(0.05)
    if keeper.poll() is None:
        reason = f"was not ready after {limit_s:g} s; set {START_LIMIT} to allow more"
    else:
        reason = f"ended with code {keeper.returncode} while it started"
    keeper.kill()
    keeper.wait()
    tail = output_file.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
    raise StateError(f"the Prefect server {reason}. Its last output ({output_file}): {tail or 'none'}")


def _start_limit_s() -> float:
    text = os.environ.get(START_LIMIT, "")
    try:
        limit_s = float(text or DEFAULT_START_LIMIT_S)
    except ValueError:
        limit_s = 0.0
    if not 0 < limit_s < float("inf"):
        raise ConfigError(f"{START_LIMIT} is {text!r}; it must be a number of seconds above 0")
    return limit_s


def keep(host: str, port: int, allow: tuple[str, ...] = ()) -> None:
    """Serve Prefect's API and UI until nobody holds a lease."""
    home = make_folder(state_folder() / "prefect")
    auth_string = read_auth_string(home)
    with _socket(host) as listener:
        listener.bind((host, port))
        port = listener.getsockname()[1]
        # Clients on this machine cannot connect to the wildcard address.
        local = "127.0.0.1" if host == "0.0.0.0" else "::1" if host == "::" else host
        address = f"http://{f'[{local}]' if ':' in local else local}:{port}"
        os.environ |= {
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": f"{address}/api",
            # Relative, so that the UI works under every name of the server and through a tunnel.
            "PREFECT_UI_API_URL": "/api",
            "PREFECT_SERVER_API_HOST": host,
            "PREFECT_SERVER_API_PORT": str(port),
            "PREFECT_SERVER_API_AUTH_STRING": auth_string,
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": address,
        }
        asyncio.run(_serve(home, listener, PrefectServer(f"{address}/api", auth_string), allowed_hosts(host, allow)))


async def _serve(home: Path, listener: socket.socket, access: PrefectServer, hosts: frozenset[str]) -> None:
    import uvicorn
    from prefect.server.api.server import create_app

    from longreward.tasks.processes import this_process

    app = RequestGuard(create_app(final=True), hosts)
    settings = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)
    server = uvicorn.Server(settings)
    serving = asyncio.create_task(_run(server, listener))
    while not server.started and not serving.done():  # noqa: ASYNC110  # uvicorn gives no event
        await asyncio.sleep(0.02)
    if serving.done():
        sys.exit(serving.result() or 1)
    note = {"url": access.url, "keeper": str(this_process()), "auth_string": access.auth_string}
    write_private(home / "server.json", json.dumps(note))
    needed = time.monotonic()
    while not serving.done():
        if _leases(home):
            needed = time.monotonic()
        elif time.monotonic() - needed > GRACE_S and _let_go(home):
            break
        await asyncio.sleep(0.5)
    server.should_exit = True
    await serving


async def _run(server: Any, listener: socket.socket) -> int:
    """The exit code. uvicorn ends the process where it cannot start, past everything that awaits it."""
    try:
        await server.serve(sockets=[listener])
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def _let_go(home: Path) -> bool:
    """Takes the note away, so that the next client starts a server anew; not where one has just come."""
    with state_lock("prefect"):
        if _leases(home):
            return False
        (home / "server.json").unlink(missing_ok=True)
        return True


def _leases(home: Path) -> list[Path]:
    """The leases of processes that live; the others are removed."""
    held = []
    for lease in (home / "leases").iterdir():
        if ProcessRef.read(lease.name).alive:
            held.append(lease)
        else:
            lease.unlink(missing_ok=True)
    return held


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=keep.__doc__)
    parser.add_argument("--host", default=LOCALHOST)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--allow-host", action="append", default=[])
    options = parser.parse_args()
    keep(options.host, options.port, tuple(options.allow_host))
