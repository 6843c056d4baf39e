"""Who answers for the policy, and how a server is asked: the section `server` of `params.yaml`."""

import os
from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from longreward.config import Config
from longreward.errors import ConfigError
from longreward.utils.endpoints import read_key, validate_url, validate_variable_name


class ServerConfig(Config):
    """Who answers for the policy in `sample` and `evaluate`: the model in the stage's own process, or a server."""

    kind: Literal["in_process", "external", "vllm"] = "in_process"
    """`in_process`: the model is loaded into the stage; `external`: a server of yours answers; `vllm`: one that the
    stage starts on its checkpoint and ends. Under `in_process` no other setting here is looked at."""

    base_url: str | None = Field(default=None, validate_default=True)
    """`external`: where the protocol of the server with the SFT model begins, as `http://localhost:8000/v1`."""

    model: str | None = None
    """`external`: the SFT model's name as that server knows it; None: the only one that it serves."""

    trained_base_url: str | None = None
    """`external`: the same for the server with the trained model; None: `base_url`. Only `evaluate` asks it."""

    trained_model: str | None = None
    """`external`: the trained model's name at its server. Where neither this nor `trained_base_url` is set, `evaluate`
    loads both models into its own process, so that like is compared with like."""

    api_key_env: str | None = None
    """`external`: the environment variable that holds the servers' key; None: no key is sent."""

    prompt: Literal["ids", "chat"] = "ids"
    """`ids`: the prompt's token ids to `/completions`, exactly those of every other stage (vLLM, SGLang). `chat`: the
    filled `prompt_template` as the user's message to `/chat/completions`; the server applies its own chat template."""

    check_prompt: bool = True
    """Whether the first answer's count of prompt tokens must be ours, where the server gives one: another says that the
    server has another tokenizer or chat template."""

    choices_per_request: int | None = Field(default=None, ge=1)
    """Most answers that one request asks for (`n`); None: all of a prompt. 1 suits servers that refuse `n`; one that
    ignores it is asked again by itself."""

    max_concurrency: int = Field(default=16, ge=1, le=1000)
    """Requests in flight at once."""

    timeout_s: float = Field(default=1800.0, gt=0, allow_inf_nan=False)
    """Seconds without a byte from the server after which a request has failed; all answers of a request come at once,
    after its time in the server's queue."""

    max_retries: int = Field(default=3, ge=0, le=100)
    """Retries of a failed request (no connection, a timeout, 408, 409, 429, 5xx), with backoff or as Retry-After
    says."""

    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Fields added to every request, as `{"top_k": -1}`. One of ours is replaced by its value here and left out where
    that is null: `{"seed": null}`."""

    arguments: tuple[str, ...] = ()
    """`vllm`: arguments added to the command, as `["--tensor-parallel-size", "4"]`."""

    command: tuple[str, ...] | None = None
    """`vllm`: another command that serves a checkpoint, a list of words in which `{model}`, `{revision}`, `{port}`,
    `{window}` and `{dtype}` are filled in. None: `vllm serve` with prefix caching."""

    port: int | None = Field(default=None, ge=1, le=65535)
    """`vllm`: where it listens, on 127.0.0.1; None, or where that one is taken: a free port."""

    start_limit_s: float = Field(default=900.0, gt=0, allow_inf_nan=False)
    """`vllm`: seconds for the server to load the model and report that it is healthy."""

    @field_validator("base_url", "trained_base_url")
    @classmethod
    def _is_plain_url(cls, value: str | None) -> str | None:
        return validate_url(value, section="server")

    @field_validator("base_url")
    @classmethod
    def _is_given(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("kind") == "external":
            raise ValueError("must be your server's address where server.kind is external")
        return value

    @field_validator("api_key_env")
    @classmethod
    def _is_variable_name(cls, value: str | None) -> str | None:
        return None if value is None else validate_variable_name(value, section="server")

    @field_validator("command")
    @classmethod
    def _names_the_port(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and not all(any(slot in word for word in value) for slot in ("{port}", "{model}")):
            raise ValueError("must be a list of words, among them {model} and {port}")
        return value


def server_key(config: ServerConfig) -> str | None:
    """The key of external servers; None where `api_key_env` names none. ConfigError where it is not set."""
    if config.api_key_env is None:
        return None
    if not os.environ.get(config.api_key_env, "").strip():
        raise ConfigError(
            f"the environment variable {config.api_key_env} holds no key for the policy's server; set it, or leave "
            "server.api_key_env out where the server needs none"
        )
    return read_key(config.api_key_env, base_url=config.base_url, whose="the policy's server", section="server")
