"""The policy of a stage: loaded in this process, at a server of the user's, or at a server that the stage starts.

async with open_policy(params.policy, params.server, "models/sft", logs=run.state) as policy:
    await sample_in_shards("sample", policy, …)
"""

import asyncio
import logging
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from longreward.errors import PolicyError, ServerRefused, ServerUnavailable
from longreward.models.config import PolicyConfig
from longreward.models.policy import Policy, load_policy, policy_window
from longreward.models.policy_client import PolicyClient
from longreward.models.served_policy import ServedPolicy, served_policy
from longreward.models.server_config import ServerConfig
from longreward.models.servers import (
    connect_role,
    launch_command,
    launch_environment,
    served_name,
    server_addresses,
)
from longreward.records import Role
from longreward.tasks.prefect_server import free_port
from longreward.tasks.processes import start_supervised, terminate_group

AnyPolicy = Policy | ServedPolicy
HEALTH_INTERVAL_S = 0.2
LOG_TAIL_BYTES = 2000

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_policy(
    config: PolicyConfig, server: ServerConfig, path: str | Path, *, logs: Path, role: Role = "sft"
) -> AsyncIterator[AnyPolicy]:
    """Open the policy of a folder or hub id as `server.kind` says.

    A user's server is tested by a request for one token. A server of the stage's own starts with the first shard that
    needs it and ends with this block, or with this process; it logs to a file in `logs`.

    Raises PolicyError, among them ServerUnavailable and ServerRefused; ConfigError if a key or program is missing.
    """
    if server.kind == "in_process":
        yield load_policy(config, path)
    elif server.kind == "external":
        client = await connect_role(server, role)
        try:
            yield served_policy(config, path, client)
        finally:
            await client.close()
    else:
        process = PolicyServerProcess(config, server, path, logs / f"server-{role}.log")
        local_client = PolicyClient(server, base_url=process.base_url, model=served_name(config, path), local=True)
        try:
            yield served_policy(config, path, local_client, process)
        finally:
            process.stop()
            await local_client.close()


async def comparison_server(config: ServerConfig, roles: Sequence[Role] = ("sft", "dpo")) -> ServerConfig:
    """Return how all models answer: in the same way, so that differences come from the models.

    User's servers are tested by a request for one token each, before the stage works for hours. If one of the models
    has no server, all answer in this process.
    """
    if config.kind != "external":
        return config
    addresses = server_addresses(config)
    if "dpo" in roles and "dpo" not in addresses:
        log.info("server names no trained model, so all models answer in this process")
        return config.model_copy(update={"kind": "in_process"})
    for role in roles:
        await (await connect_role(config, role)).close()
    return config


class PolicyServerProcess:
    """A server of a checkpoint, started when it is first needed and again if it has exited."""

    def __init__(self, config: PolicyConfig, server: ServerConfig, path: str | Path, log_file: Path) -> None:
        self._port = free_port(server.port or 0)
        window = policy_window(config, path) or 0
        self._command = launch_command(config, server, path, port=self._port, window=window)
        self._limit_s = server.start_limit_s
        self._log_file = log_file
        self._process: subprocess.Popen[bytes] | None = None
        self._has_served = False
        self._starting = asyncio.Lock()

    @property
    def base_url(self) -> str:
        """The address of its OpenAI-compatible API."""
        return f"http://127.0.0.1:{self._port}/v1"

    async def ready(self) -> None:
        """Return once the server is healthy.

        Raises ServerRefused if it does not start, ServerUnavailable if it does not start again.
        """
        async with self._starting:
            if self._process is not None and self._process.poll() is None:
                return
            if tail := self.log_tail():
                log.warning("%s; it is started again", tail)
            await self._start()

    def log_tail(self) -> str:
        """Return the last output of a server that has exited; empty while it runs and before its start."""
        if self._process is None or self._process.poll() is None:
            return ""
        return f"the server that this stage started ended with code {self._process.returncode}: {self._tail()}"

    def stop(self) -> None:
        """End the server and all that it started; blocks until then."""
        if self._process is not None:
            terminate_group(self._process.pid)
            self._process.wait()

    async def _start(self) -> None:
        self.stop()  # processes that an exited server left
        started = time.monotonic()
        with self._log_file.open("wb") as output:
            self._process = start_supervised(
                self._command, output=output, environment=launch_environment(self._command)
            )
        log.info("started %s; it logs to %s", " ".join(self._command), self._log_file)
        while not await asyncio.to_thread(_is_healthy, self._port):
            if self._process.poll() is not None:
                raise self._error(f"the policy's server did not start: {self.log_tail()}")
            if time.monotonic() - started > self._limit_s:
                self.stop()
                raise self._error(
                    f"the policy's server was not healthy after {self._limit_s:g} s (server.start_limit_s); "
                    f"its last output: {self._tail()}"
                )
            await asyncio.sleep(HEALTH_INTERVAL_S)
        self._has_served = True
        log.info("the policy's server is healthy after %.0f s", time.monotonic() - started)

    def _error(self, message: str) -> PolicyError:
        return ServerUnavailable(message) if self._has_served else ServerRefused(message)

    def _tail(self) -> str:
        tail = self._log_file.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
        return f"{tail or 'nothing'}\n(all of it: {self._log_file})"


def _is_healthy(port: int) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy
    try:
        with direct.open(f"http://127.0.0.1:{port}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False
