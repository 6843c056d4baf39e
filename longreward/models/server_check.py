"""Can the policy's server be worked with? Looked at before hours are spent: the settings without any call, the server
with a one-token request.

check_server(config)                # raises ConfigError that says what to set or install
for found in await probe(config):
    print(found.ok, found.told)     # True  policy server at http://localhost:8000/v1/: 'sft' answered in 0.4 s
"""

import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from longreward.errors import ConfigError, PolicyError
from longreward.models.server_config import ServerConfig
from longreward.utils.endpoints import key_from_environment


def check_server(config: ServerConfig) -> None:
    """Raises ConfigError where `server.kind` needs a key or a program that is not there. Calls nobody."""
    if config.kind == "external":
        server_key(config)
    if config.kind == "vllm":
        program(config)


@dataclass(frozen=True)
class ServerProbe:
    """What a server of the policy did with a tiny request."""

    name: str
    """The model's name at the server; the program where the stage will start it."""
    ok: bool
    """Whether it can be worked with; where not, `told` says why and what to do."""
    told: str
    """One line for people: who, where, and how it went. Holds no key."""
    seconds: float = 0.0


async def probe(config: ServerConfig, *, timeout_s: float = 60.0) -> list[ServerProbe]:
    """Asks each external server for one token, or looks for the program that `vllm` starts; nothing for `in_process`.

    Never raises for what a server does. A request gets at most `timeout_s` and one retry.
    """
    from longreward.models.external_server import addresses, open_external

    if config.kind == "in_process":
        return []
    try:
        check_server(config)
    except ConfigError as error:
        return [ServerProbe(config.kind, False, str(error))]
    if config.kind == "vllm":
        found = program(config)
        return [ServerProbe(found, True, f"the policy's server: {found}, started by the stages that need it")]
    server = config.model_copy(update={"timeout_s": min(config.timeout_s, timeout_s), "max_retries": 1})
    probed = []
    for base_url, model in addresses(server).values():
        started = time.monotonic()
        try:
            client = await open_external(server, base_url=base_url, model=model)
            await client.close()
        except PolicyError as error:
            probed.append(ServerProbe(model or "?", False, str(error), time.monotonic() - started))
            continue
        seconds = time.monotonic() - started
        told = f"{client.faults.where}: {client.model!r} answered in {seconds:.1f} s"
        probed.append(ServerProbe(client.model or "?", True, told, seconds))
    return probed


def server_key(config: ServerConfig) -> str | None:
    """The key of external servers; None where `api_key_env` names none. ConfigError where it is not set."""
    if config.api_key_env is None:
        return None
    if not os.environ.get(config.api_key_env, "").strip():
        raise ConfigError(
            f"the environment variable {config.api_key_env} holds no key for the policy's server; set it, or leave "
            "server.api_key_env out where the server needs none"
        )
    return key_from_environment(
        config.api_key_env, base_url=config.base_url, whose="the policy's server", section="server"
    )


def program(config: ServerConfig) -> str:
    """The path of the program that serves a checkpoint. ConfigError where it is not installed."""
    wanted = config.command[0] if config.command else "vllm"
    beside = Path(sys.executable).parent / wanted  # of this environment, whether it is activated or not
    found = str(beside) if os.access(beside, os.X_OK) and beside.is_file() else shutil.which(wanted)
    if found is None and config.command:
        raise ConfigError(f"server.command: there is no program {wanted!r} here or on PATH")
    if found is None:
        raise ConfigError(
            "server.kind is vllm, and vLLM is not installed: pip install 'longreward[vllm]', or, since vLLM insists "
            "on a torch of its own, install it into an environment of its own and put that one's bin folder on PATH"
        )
    return found
