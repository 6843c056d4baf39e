"""The policy of a stage, wherever its answers come from: loaded here, at a server of the user's, or at one that the
stage starts on its checkpoint and ends.

    async with open_policy(params.policy, params.server, "models/sft", logs=run.state) as policy:
        await sample_in_shards("sample", policy, …)
"""

import asyncio
import logging
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from longreward.errors import PolicyError, ServerRefused, ServerUnavailable
from longreward.models.config import PolicyConfig
from longreward.models.policy import Policy, load_policy, policy_window
from longreward.models.policy_client import PolicyClient
from longreward.models.served_policy import ServedPolicy, served_policy
from longreward.models.server_config import ServerConfig
from longreward.models.servers import (
    connect_external,
    launch_command,
    launch_environment,
    served_name,
    server_addresses,
)
from longreward.records import Role
from longreward.tasks.prefect_server import free_port
from longreward.tasks.processes import terminate_group, this_process

AnyPolicy = Policy | ServedPolicy
LOOK_EVERY_S = 0.2
KEPT_BYTES = 2000

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_policy(
    config: PolicyConfig, server: ServerConfig, path: str | Path, *, logs: Path, role: Role = "sft"
) -> AsyncIterator[AnyPolicy]:
    """The policy of folder or hub id `path`, as `server.kind` says; a server of the user's has given a token.

    A server of the stage's own starts with the first shard that needs it and ends with this block, or else with this
    process; what it prints goes to a file in `logs`.
    Raises PolicyError, among them ServerUnavailable and ServerRefused; ConfigError where a key or program is missing.
    """
    if server.kind == "in_process":
        yield load_policy(config, path)
    elif server.kind == "external":
        base_url, model = server_addresses(server)[role]
        client = await connect_external(server, base_url=base_url, model=model)
        try:
            yield served_policy(config, path, client)
        finally:
            await client.close()
    else:
        own = StagePolicyServer(config, server, path, logs / f"server-{role}.log")
        client = PolicyClient(server, base_url=own.base_url, model=served_name(config, path), local=True)
        try:
            yield served_policy(config, path, client, own)
        finally:
            own.end()
            await client.close()


async def comparison_server(config: ServerConfig) -> ServerConfig:
    """How both models of `evaluate` answer: alike, so that what differs is the models.

    External servers are asked for a token each, before hours go by; where only the SFT model has one, both models
    answer in process.
    """
    if config.kind != "external":
        return config
    places = server_addresses(config)
    if "dpo" not in places:
        log.info("server names no trained model, so both models answer in this process")
        return config.model_copy(update={"kind": "in_process"})
    for base_url, model in places.values():
        await (await connect_external(config, base_url=base_url, model=model)).close()
    return config


class StagePolicyServer:
    """A server on a checkpoint, started when it is first needed and again where it has ended."""

    def __init__(self, config: PolicyConfig, server: ServerConfig, path: str | Path, output: Path) -> None:
        self._port = free_port(server.port or 0)
        window = policy_window(config, path) or 0
        self._command = launch_command(config, server, path, port=self._port, window=window)
        self._limit_s = server.start_limit_s
        self._output = output
        self._process: subprocess.Popen[bytes] | None = None
        self._has_served = False
        self._starting = asyncio.Lock()

    @property
    def base_url(self) -> str:
        """Where its protocol begins."""
        return f"http://127.0.0.1:{self._port}/v1"

    async def ready(self) -> None:
        """Returns once the server is healthy; an error with its last words where it does not get there: ServerRefused
        at the first time, ServerUnavailable where it has served before."""
        async with self._starting:
            if self._process is not None and self._process.poll() is None:
                return
            if words := self.log_tail():
                log.warning("%s; it is started again", words)
            await self._start()

    def log_tail(self) -> str:
        """What a server that has ended printed last; nothing where it runs or was never started."""
        if self._process is None or self._process.poll() is None:
            return ""
        return f"the server that this stage started ended with code {self._process.returncode}: {self._tail()}"

    def end(self) -> None:
        """Ends the server and all that it started; blocks for at most a quarter of a minute or two."""
        if self._process is not None:
            terminate_group(self._process.pid)
            self._process.wait()

    async def _start(self) -> None:
        self.end()  # what a server that ended left behind
        started = time.monotonic()
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: ASYNC220  # takes a millisecond; asyncio's own ends with its loop
                [sys.executable, "-m", "longreward.tasks.supervise", str(this_process()), *self._command],
                env=launch_environment(self._command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        log.info("started %s; it prints to %s", " ".join(self._command), self._output)
        while not await asyncio.to_thread(_healthy, self._port):
            if self._process.poll() is not None:
                raise self._failure(f"the policy's server did not start: {self.log_tail()}")
            if time.monotonic() - started > self._limit_s:
                self.end()
                raise self._failure(
                    f"the policy's server was not healthy after {self._limit_s:g} s (server.start_limit_s); "
                    f"it said: {self._tail()}"
                )
            await asyncio.sleep(LOOK_EVERY_S)
        self._has_served = True
        log.info("the policy's server is healthy after %.0f s", time.monotonic() - started)

    def _failure(self, message: str) -> PolicyError:
        return ServerUnavailable(message) if self._has_served else ServerRefused(message)

    def _tail(self) -> str:
        words = self._output.read_bytes()[-KEPT_BYTES:].decode(errors="replace").strip()
        return f"{words or 'nothing'}\n(all of it: {self._output})"


def _healthy(port: int) -> bool:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"http://127.0.0.1:{port}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False
