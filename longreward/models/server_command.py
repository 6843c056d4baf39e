"""The command that starts a server on a checkpoint."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from longreward.models.model_ref import source
from longreward.models.server_check import program
from longreward.models.server_config import ServerConfig

if TYPE_CHECKING:
    from longreward.models.policy import PolicyConfig


def served_name(config: "PolicyConfig", path: str | Path) -> str:
    """What the command gets as the model, an absolute path or a hub id, by which the server then knows it."""
    name = str(source(config, path)["pretrained_model_name_or_path"])
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def launch_command(
    config: "PolicyConfig", server: ServerConfig, path: str | Path, *, port: int, window: int
) -> list[str]:
    """Serves the model of folder or hub id `path` on 127.0.0.1; ConfigError where the program is not installed.

    `--generation-config vllm` keeps a model's own top_k or repetition penalty from being added to the settings of
    `sample`; the model's end tokens count all the same.
    """
    revision = source(config, path).get("revision") or "main"
    model = served_name(config, path)
    known = {"model": model, "revision": revision, "port": str(port), "window": str(window), "dtype": config.dtype}
    if server.command is not None:
        return [program(server), *(_filled(word, known) for word in server.command[1:]), *server.arguments]
    line = f"--host 127.0.0.1 --port {port} --max-model-len {window} --dtype {config.dtype}"
    of_hub = [] if Path(model).is_dir() else ["--revision", revision, "--tokenizer-revision", revision]
    trusting = ["--trust-remote-code"] if config.trust_remote_code else []
    always = ["--enable-prefix-caching", "--generation-config", "vllm"]
    return [program(server), "serve", model, *line.split(), *of_hub, *trusting, *always, *server.arguments]


def launch_environment(command: Sequence[str]) -> dict[str, str]:
    """This process's environment, in which the program finds what is installed beside it (vLLM: ninja)."""
    beside = str(Path(command[0]).parent)
    path = os.pathsep.join([beside, os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}


def _filled(word: str, known: Mapping[str, str]) -> str:
    for slot, value in known.items():
        word = word.replace("{" + slot + "}", value)
    return word
