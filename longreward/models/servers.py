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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longreward.errors import ConfigError, PolicyError, ServerRefused
from longreward.models.model_ref import pretrained_kwargs
from longreward.models.policy_client import PolicyClient
from longreward.models.server_config import ServerConfig, server_key


def check_server(config: ServerConfig) -> None:
    """Raises ConfigError where `server.kind` needs a key or a program that is not there. Calls nobody."""
    if config.kind == "external":
        server_key(config)
    if config.kind == "vllm":
        find_program(config)


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


async def probe_servers(config: ServerConfig, *, timeout_s: float = 60.0) -> list[ServerProbe]:
    """Asks each external server for one token, or looks for the program that `vllm` starts; nothing for `in_process`.

    Never raises for what a server does. A request gets at most `timeout_s` and one retry.
    """

    if config.kind == "in_process":
        return []
    try:
        check_server(config)
    except ConfigError as error:
        return [ServerProbe(config.kind, False, str(error))]
    if config.kind == "vllm":
        found = find_program(config)
        return [ServerProbe(found, True, f"the policy's server: {found}, started by the stages that need it")]
    server = config.model_copy(update={"timeout_s": min(config.timeout_s, timeout_s), "max_retries": 1})
    probed = []
    for base_url, model in server_addresses(server).values():
        started = time.monotonic()
        try:
            client = await connect_external(server, base_url=base_url, model=model)
            await client.close()
        except PolicyError as error:
            probed.append(ServerProbe(model or "?", False, str(error), time.monotonic() - started))
            continue
        seconds = time.monotonic() - started
        told = f"{client.faults.where}: {client.model!r} answered in {seconds:.1f} s"
        probed.append(ServerProbe(client.model or "?", True, told, seconds))
    return probed


def find_program(config: ServerConfig) -> str:
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


# A server of the user's own: is it there, does it serve the model that it should, and how long may a text be?


if TYPE_CHECKING:
    from longreward.records import Role


def server_addresses(config: ServerConfig) -> "dict[Role, tuple[str, str | None]]":
    """The base URL and the model's name for the SFT model and, where one is configured, the trained one."""
    assert config.base_url is not None, "ServerConfig holds external to an address"
    found: dict[Role, tuple[str, str | None]] = {"sft": (config.base_url, config.model)}
    if config.trained_base_url or config.trained_model:
        found["dpo"] = (config.trained_base_url or config.base_url, config.trained_model)
    return found


async def connect_external(config: ServerConfig, *, base_url: str, model: str | None) -> PolicyClient:
    """A client that has got a first token from `model` (None: the only one that is served).

    Raises ServerUnavailable, ServerRefused, or ConfigError where the key is missing.
    """
    client = PolicyClient(config, base_url=base_url, model=model)
    try:
        listed = await client.listed()
        names = [str(one["id"]) for one in listed]
        if client.model is None and len(names) == 1:
            client.model = names[0]
        await _check_served(client, names)
        client.window = next((_window(one) for one in listed if one["id"] == client.model), None)
    except PolicyError:
        await client.close()
        raise
    return client


async def _check_served(client: PolicyClient, names: list[str]) -> None:
    """A list without the name settles nothing: `transformers serve` lists its download cache, and not what it serves.

    So the server is asked under the name, and under one that no model has: who answers to both looks at neither.
    """
    wanted = f"{client.model!r}, as configured," if client.model else "one model alone, so that it must be named,"
    another = f"the {client.faults.where} does not serve {wanted} but {', '.join(names) or 'does not say what'}; "
    advice = "set server.model (server.trained_model for the trained one) or start the right server"
    if client.model is None:
        raise ServerRefused(another + advice)
    try:
        await client.first_token()
    except ServerRefused as error:
        if client.model in names or not names:
            raise
        raise ServerRefused(f"{another}{advice} ({error})") from None
    if names and client.model not in names and await client.answers_to(NO_MODEL):
        raise ServerRefused(another + advice)


def _window(listed: dict[str, Any]) -> int | None:
    """What vLLM and SGLang say beside a model's name."""
    said = listed.get("max_model_len")
    return said if isinstance(said, int) and said > 0 else None


NO_MODEL = "no-model-has-this-name"


# The command that starts a server on a checkpoint.


if TYPE_CHECKING:
    from longreward.models.config import PolicyConfig


def served_name(config: "PolicyConfig", path: str | Path) -> str:
    """What the command gets as the model, an absolute path or a hub id, by which the server then knows it."""
    name = str(pretrained_kwargs(config, path)["pretrained_model_name_or_path"])
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def launch_command(
    config: "PolicyConfig", server: ServerConfig, path: str | Path, *, port: int, window: int
) -> list[str]:
    """Serves the model of folder or hub id `path` on 127.0.0.1; ConfigError where the program is not installed.

    `--generation-config vllm` keeps a model's own top_k or repetition penalty from being added to the settings of
    `sample`; the model's end tokens count all the same.
    """
    revision = pretrained_kwargs(config, path).get("revision") or "main"
    model = served_name(config, path)
    known = {"model": model, "revision": revision, "port": str(port), "window": str(window), "dtype": config.dtype}
    if server.command is not None:
        return [find_program(server), *(_filled(word, known) for word in server.command[1:]), *server.arguments]
    line = f"--host 127.0.0.1 --port {port} --max-model-len {window} --dtype {config.dtype}"
    of_hub = [] if Path(model).is_dir() else ["--revision", revision, "--tokenizer-revision", revision]
    trusting = ["--trust-remote-code"] if config.trust_remote_code else []
    always = ["--enable-prefix-caching", "--generation-config", "vllm"]
    return [find_program(server), "serve", model, *line.split(), *of_hub, *trusting, *always, *server.arguments]


def launch_environment(command: Sequence[str]) -> dict[str, str]:
    """This process's environment, in which the program finds what is installed beside it (vLLM: ninja)."""
    beside = str(Path(command[0]).parent)
    path = os.pathsep.join([beside, os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}


def _filled(word: str, known: Mapping[str, str]) -> str:
    for slot, value in known.items():
        word = word.replace("{" + slot + "}", value)
    return word
