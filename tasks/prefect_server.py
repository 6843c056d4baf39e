"""The Prefect server that this process uses: the configured one, or a child process that ends with this one.

The database of the child lies in the state folder, so runs of earlier and concurrent processes show in every UI. A
pipeline, `longreward serve` and a stage under a bare `dvc repro` each start a server; the stages of a pipeline use
that of the pipeline. The server asks for a login and refuses requests of other web pages (`tasks.server_access`).
"""

import asyncio
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
from longreward.tasks.processes import start_supervised, terminate_group
from longreward.tasks.server_access import LOCALHOST, RequestGuard, allowed_hosts, auth_file, read_auth_string
from longreward.tasks.state import make_folder, state_folder, state_lock
from longreward.utils.redaction import redact

START_LIMIT_S = 120.0
LOG_INTERVAL_S = 10.0
LOG_TAIL_BYTES = 2000
DRAIN_S = 3.0  # Prefect clients send their last events, among them the end of tasks, when their process exits

log = logging.getLogger(__name__)


class PrefectUnavailable(LongRewardError):
    """The Prefect server cannot be reached, or refuses the login."""


@dataclass(frozen=True)
class PrefectServer:
    """The address of a Prefect API, its login ("user:password", if any), and the file of the login if it is ours."""

    url: str
    auth_string: str | None = field(default=None, repr=False)
    auth_file: Path | None = None

    @property
    def settings(self) -> dict[Any, Any]:
        """For `prefect.settings.temporary_settings`."""
        import prefect.settings

        return {getattr(prefect.settings, name): value for name, value in self._values.items()}

    @property
    def environment(self) -> dict[str, str]:
        """For child processes. The login must not be an argument: all users of a machine can read those."""
        return {name: value for name, value in self._values.items() if value is not None}

    @property
    def _values(self) -> dict[str, str | None]:
        """Prefect's settings by the names of their environment variables."""
        ui = {"PREFECT_UI_URL": self.ui_url} if self.ui_url else {}
        return {"PREFECT_API_URL": self.url, "PREFECT_API_AUTH_STRING": self.auth_string or None, **ui}

    @property
    def ui_url(self) -> str | None:
        """The address that Prefect's links start with, for a server of ours: by default they lead to the old UI."""
        return f"{self.url.removesuffix('/api')}/v2" if self.auth_file else None


_children: list["subprocess.Popen[bytes]"] = []  # a server ends when its Popen object is collected


def prefect_server(*, host: str = LOCALHOST, port: int = 0, allow: tuple[str, ...] = ()) -> PrefectServer:
    """Return the configured Prefect server, or start one that ends with this process.

    Args:
        host, port: where a server that is started here listens; port 0 takes a free one.
        allow: more host names that its clients may use.

    Raises StateError if the server does not start.
    """
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL

    if configured := PREFECT_API_URL.value():
        return PrefectServer(str(configured), PREFECT_API_AUTH_STRING.value() or None)
    home = make_folder(state_folder() / "prefect")
    with state_lock("prefect"), _socket(host) as listener:  # two servers must not create the database at once
        listener.bind((host, port))
        listener.listen()  # before the child starts: the port cannot be lost, and requests wait until it is ready
        port = listener.getsockname()[1]
        # Clients on this machine cannot connect to the wildcard address.
        local = {"0.0.0.0": LOCALHOST, "::": "::1"}.get(host, host)
        address = f"http://{f'[{local}]' if ':' in local else local}:{port}"
        server = PrefectServer(f"{address}/api", read_auth_string(home), auth_file(home))
        environment = {
            **os.environ,
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": server.url,
            "PREFECT_UI_API_URL": "/api",  # relative, so that the UI works under every name and through a tunnel
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            "PREFECT_SERVER_API_HOST": host,
            "PREFECT_SERVER_API_PORT": str(port),
            "PREFECT_SERVER_API_AUTH_STRING": str(server.auth_string),
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": address,
        }
        command = [sys.executable, "-m", "longreward.tasks.prefect_server", str(listener.fileno())]
        log_file = home / "server.log"
        with log_file.open("ab") as output:  # concurrent servers share it
            start = output.tell()
            process = start_supervised(
                [*command, *sorted(allowed_hosts(host, allow))],
                output=output,
                environment=environment,
                pass_fds=[listener.fileno()],
            )
        listener.close()
        if problem := _wait_until_ready(process, server.url):
            tail = log_file.read_bytes()[start:][-LOG_TAIL_BYTES:].decode(errors="replace").strip()
            raise StateError(f"the Prefect server {problem}. Its last output ({log_file}): {tail or 'none'}")
    _children.append(process)
    return server


def _wait_until_ready(process: "subprocess.Popen[bytes]", url: str) -> str | None:
    """Return None once the server answers, else what went wrong."""
    import httpx

    with httpx.Client(trust_env=False) as client:  # no proxy
        started = time.monotonic()  # opening the client takes a while
        while (elapsed := time.monotonic() - started) < START_LIMIT_S:
            try:
                client.get(f"{url}/health", timeout=min(LOG_INTERVAL_S, START_LIMIT_S - elapsed))
            except httpx.TimeoutException:
                waited = time.monotonic() - started
                log.info("waits for the Prefect server to start: %.3g of at most %g s", waited, START_LIMIT_S)
            except httpx.TransportError:  # the server has ended and closed its port
                return f"ended with code {process.wait()} while it started"
            else:
                return None
    terminate_group(process.pid)
    process.wait()
    return f"was not ready after {START_LIMIT_S:g} s"


async def check_server(server: PrefectServer) -> None:
    """Raise PrefectUnavailable, with advice, if the server cannot be reached or refuses the login.

    The health check of Prefect's API needs no login, so this reads a flow.
    """
    import httpx
    from prefect import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import PREFECT_API_KEY, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    url = redact(server.url)
    try:
        # By default the client retries for half a minute and logs each attempt.
        with temporary_settings({**server.settings, PREFECT_CLIENT_MAX_RETRIES: 0}):
            async with get_client() as client:
                await client.read_flows(limit=1)
    except PrefectHTTPStatusError as error:
        code = error.response.status_code
        if code not in (401, 403):
            raise PrefectUnavailable(
                f"the Prefect server at {url} answers with HTTP {code}; check PREFECT_API_URL"
            ) from None
        if server.auth_string:
            problem = "refuses the login in PREFECT_API_AUTH_STRING"
        elif PREFECT_API_KEY.value():
            problem = "refuses the key in PREFECT_API_KEY"
        else:
            problem = "asks for a login, and PREFECT_API_AUTH_STRING is not set"
        raise PrefectUnavailable(
            f"the Prefect server at {url} {problem} (HTTP {code}); set PREFECT_API_AUTH_STRING to the user:password "
            "that the server was started with"
        ) from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, RuntimeError) as error:
        reason = redact(" ".join(str(error).split())) or type(error).__name__
        raise PrefectUnavailable(
            f"the Prefect server at {url} cannot be used: {reason}; start it, correct PREFECT_API_URL, or unset "
            "that to use a server of this project's own"
        ) from None


def free_port(preferred: int, host: str = LOCALHOST) -> int:
    """Return `preferred` if nothing listens on it, else any free port."""
    for port in (preferred, 0):
        with _socket(host) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise StateError(f"no free port on {host}")


def check_port(port: int, host: str) -> None:
    """Raise ConfigError if this process cannot listen on the port."""
    with _socket(host) as probe:
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror or error}") from None


def _socket(host: str) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return listener


def serve(listener: socket.socket, hosts: frozenset[str]) -> None:
    """Serve Prefect's API and UI until SIGTERM, and for DRAIN_S after it."""
    import uvicorn
    from prefect.server.api.server import create_app

    from longreward.tasks.ui_links import MlflowRedirect

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            await asyncio.sleep(DRAIN_S)
            await super().shutdown(sockets)

    app = RequestGuard(MlflowRedirect(create_app(final=True), state_folder()), hosts)
    Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)).run(sockets=[listener])


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), frozenset(sys.argv[2:]))
