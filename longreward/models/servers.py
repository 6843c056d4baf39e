"""Policy servers: check the settings, probe or connect to a running server, and build the command that starts one.

check_server(config)                          # raises ConfigError if a key or a program is missing; no requests
for result in await probe_servers(config):    # requests one token from each server
    print(result.ok, result.message)          # True  policy server at http://localhost:8000/v1/: 'sft' answered …
"""

import logging
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longreward.errors import ConfigError, PolicyError, ServerRefused, ServerUnavailable
from longreward.models.balanced_client import BalancedClient
from longreward.models.config import PolicyConfig
from longreward.models.model_ref import pretrained_kwargs
from longreward.models.policy_client import PolicyClient
from longreward.models.server_config import ServerConfig, server_key
from longreward.records import Role
from longreward.utils.endpoints import ProbeResult

UNKNOWN_MODEL = "no-model-has-this-name"
LLAMA_CPP_NEUTRAL = {"top_k": 0, "min_p": 0}
"""The values with which llama.cpp samples from the whole distribution."""

log = logging.getLogger(__name__)


def check_server(config: ServerConfig) -> None:
    """Raise ConfigError if `server.kind` needs a key or a program that is missing. Sends no requests."""
    if config.kind == "external":
        server_key(config)
    if config.kind == "vllm":
        find_program(config)


async def probe_servers(config: ServerConfig, *, timeout_s: float = 60.0) -> list[ProbeResult]:
    """Request one token from each external server, or look for the program that `vllm` starts.

    Returns an empty list for `in_process`. Failures of a server are results, not exceptions. A request gets at most
    `timeout_s` seconds and one retry.
    """
    if config.kind == "in_process":
        return []
    try:
        check_server(config)
    except ConfigError as error:
        return [ProbeResult(False, str(error))]
    if config.kind == "vllm":
        message = f"the policy's server: {find_program(config)}, started by the stages that need it"
        return [ProbeResult(True, message)]
    # The configured timeout and retries suit long generations; a probe should answer or fail within a minute.
    server = config.model_copy(update={"timeout_s": min(config.timeout_s, timeout_s), "max_retries": 1})
    probes = []
    addresses = server_addresses(server).values()
    for base_url, model in ((base_url, model) for base_urls, model in addresses for base_url in base_urls):
        started = time.monotonic()
        try:
            client = await connect_external(server, base_url=base_url, model=model)
            await client.close()
        except PolicyError as error:
            probes.append(ProbeResult(False, str(error)))
            continue
        seconds = time.monotonic() - started
        message = f"{client.location}: {client.model!r} answered in {seconds:.1f} s"
        probes.append(ProbeResult(True, message))
    return probes


# --- external servers -------------------------------------------------------------------------------------------------


def server_addresses(config: ServerConfig) -> dict[Role, tuple[tuple[str, ...], str | None]]:
    """Return base URLs and model name of the SFT model's servers and, if configured, of the trained model's."""
    assert config.base_url is not None, "ServerConfig requires an address of external servers"
    addresses: dict[Role, tuple[tuple[str, ...], str | None]] = {"sft": (config.base_url, config.model)}
    if config.trained_base_url or config.trained_model:
        addresses["dpo"] = (config.trained_base_url or config.base_url, config.trained_model)
    return addresses


async def connect_role(config: ServerConfig, role: Role) -> PolicyClient | BalancedClient:
    """Return a client of all servers with the model of `role`, after a first token from each.

    Servers that are not available are left out with a warning; ServerUnavailable if none is. ServerRefused and
    ConfigError as `connect_external` raises them.
    """
    base_urls, model = server_addresses(config)[role]
    clients: list[PolicyClient] = []
    failure: ServerUnavailable | None = None
    for base_url in base_urls:
        try:
            clients.append(await connect_external(config, base_url=base_url, model=model))
        except ServerUnavailable as error:
            failure = error
            if len(base_urls) > 1:
                log.warning("%s; it is left out", error)
        except PolicyError:
            for client in clients:
                await client.close()
            raise
    if not clients:
        assert failure is not None, "every address gives a client or a failure"
        raise failure
    return clients[0] if len(base_urls) == 1 else BalancedClient(clients, max_concurrency=config.max_concurrency)


async def connect_external(config: ServerConfig, *, base_url: str, model: str | None) -> PolicyClient:
    """Return a client after a first token from `model` (None: the only model that the server lists).

    Raises ServerUnavailable, ServerRefused, or ConfigError if the key is missing.
    """
    client = PolicyClient(config, base_url=base_url, model=model)
    try:
        # Servers that host one model often accept any name, so the list is compared too.
        models = await client.list_models()
        names = [str(entry["id"]) for entry in models]
        if client.model is None and len(names) == 1:
            client.model = names[0]
        await _check_model_is_served(client, names)
        served = next((entry for entry in models if entry["id"] == client.model), {})
        client.window = _reported_window(served)
        _warn_about_llama_cpp(served, config)
    except PolicyError:
        await client.close()
        raise
    return client


def _reported_window(model: Mapping[str, Any]) -> int | None:
    """Return the window in an entry of a server's list of models: of vLLM and SGLang, or of a slot of llama.cpp.

    llama.cpp needs it most: a response that reaches the end of its slot is cut and reported as any other that reached
    the token limit.
    """
    meta = model.get("meta")
    for window in (model.get("max_model_len"), meta.get("n_ctx") if isinstance(meta, dict) else None):
        if isinstance(window, int) and window > 0:
            return window
    return None


def _warn_about_llama_cpp(model: Mapping[str, Any], config: ServerConfig) -> None:
    if model.get("owned_by") != "llamacpp":
        return
    missing = [f"{name}: {value}" for name, value in LLAMA_CPP_NEUTRAL.items() if name not in config.extra_body]
    if missing:
        log.warning(
            "llama.cpp samples with its own top_k (40) and min_p (0.05) beside sample.temperature and sample.top_p, so "
            "its responses are less varied than those of other servers; set server.extra_body: {%s}",
            ", ".join(missing),
        )


async def _check_model_is_served(client: PolicyClient, names: list[str]) -> None:
    """Raise ServerRefused if the server does not serve `client.model`; `names` are the models that it lists.

    The list alone is not enough: `transformers serve` lists its download cache, not what it serves. So the configured
    name is requested, and if it is not listed, an unknown name too: a server that accepts both ignores the name.
    """
    expected = f"{client.model!r}, as configured," if client.model else "a single model, so one must be named,"
    mismatch = f"the {client.location} does not serve {expected} but {', '.join(names) or 'lists no models'}; "
    advice = "set server.model (server.trained_model for the trained one) or start the right server"
    if client.model is None:
        raise ServerRefused(mismatch + advice)
    try:
        await client.request_token()
    except ServerRefused as error:
        if client.model in names or not names:
            raise
        raise ServerRefused(f"{mismatch}{advice} ({error})") from None
    if names and client.model not in names and await client.accepts_model(UNKNOWN_MODEL):
        raise ServerRefused(mismatch + advice)


# --- servers that a stage starts --------------------------------------------------------------------------------------


def find_program(config: ServerConfig) -> str:
    """Return the path of the program that serves a checkpoint; raises ConfigError if it is not installed."""
    name = config.command[0] if config.command else "vllm"
    in_environment = Path(sys.executable).parent / name  # works without an activated environment
    if os.access(in_environment, os.X_OK) and in_environment.is_file():
        return str(in_environment)
    if path := shutil.which(name):
        return path
    if config.command:
        raise ConfigError(f"server.command: there is no program {name!r} in this environment or on PATH")
    raise ConfigError(
        "server.kind is vllm, and vLLM is not installed: pip install 'longreward[vllm]', or, because vLLM pins its own "
        "version of torch, install it into a separate environment and put that environment's bin folder on PATH"
    )


def served_name(config: PolicyConfig, path: str | Path) -> str:
    """Return the model in the launch command, an absolute path or a hub id, which is also its name at the server."""
    name = str(pretrained_kwargs(config, path)["pretrained_model_name_or_path"])
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def launch_command(
    config: PolicyConfig, server: ServerConfig, path: str | Path, *, port: int, window: int
) -> list[str]:
    """Return the command that serves the model of a folder or hub id on 127.0.0.1.

    Raises ConfigError if the program is not installed.
    """
    program, model = find_program(server), served_name(config, path)
    revision = pretrained_kwargs(config, path).get("revision") or "main"
    if server.command is not None:
        arguments = list(server.command[1:])
        values = {"model": model, "revision": revision, "port": str(port), "window": str(window)}
        for slot, value in {**values, "dtype": config.dtype}.items():
            # Not str.format: an argument may contain JSON, whose braces are no slots.
            arguments = [argument.replace("{" + slot + "}", value) for argument in arguments]
        return [program, *arguments, *server.arguments]
    command = [program, "serve", model, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--max-model-len", str(window), "--dtype", config.dtype]
    if not Path(model).is_dir():
        command += ["--revision", revision, "--tokenizer-revision", revision]
    if config.trust_remote_code:
        command.append("--trust-remote-code")
    # `--generation-config vllm` keeps the model's own top_k or repetition penalty from changing the settings of
    # `sample`. The model's end tokens still apply.
    return [*command, "--enable-prefix-caching", "--generation-config", "vllm", *server.arguments]


def launch_environment(command: Sequence[str]) -> dict[str, str]:
    """Return this process's environment with the program's folder on PATH, where vLLM looks for ninja."""
    path = os.pathsep.join([str(Path(command[0]).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}
