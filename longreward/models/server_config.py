"""Where the policy runs while it generates: the section `server` of `params.yaml`."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from longreward.config import Config
from longreward.utils.endpoints import BaseUrl, KeyVariable, read_key

# Not a union of a string and a tuple: the error of the part that does not apply would show the value, with a password.
BaseUrls = Annotated[tuple[BaseUrl, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]


class ServerConfig(Config):
    """Where the policy generates in `sample` and `evaluate`: in the stage's own process or at a server."""

    kind: Literal["in_process", "external", "vllm"] = "in_process"
    """`in_process`: the stage loads the model. `external`: a server that you run. `vllm`: a server that the stage
    starts on its checkpoint and stops at its end. With `in_process` all other settings here are ignored."""

    base_url: BaseUrls | None = Field(default=None, validate_default=True)
    """`external`: base URL of the server with the SFT model, such as `http://localhost:8000/v1`, or a list of servers
    with the same model, among which the prompts are divided. One that fails is left out."""

    model: str | None = None
    """`external`: name of the SFT model at that server; null: the only model that it serves."""

    trained_base_url: BaseUrls | None = None
    """`external`: base URL of the server with the trained model, or a list of servers, which only `evaluate` uses;
    null: `base_url`."""

    trained_model: str | None = None
    """`external`: name of the trained model at its server. If neither this nor `trained_base_url` is set, `evaluate`
    loads both models into its own process, so that both generate under the same conditions."""

    api_key_env: KeyVariable | None = None
    """`external`: environment variable with the API key of the servers; null: no key is sent."""

    prompt: Literal["ids", "chat"] = "ids"
    """`ids`: send the prompt's token ids to `/completions`, exactly those of every other stage (vLLM, SGLang). `chat`:
    send the filled `prompt_template` as the user message to `/chat/completions`; the server applies its own chat
    template."""

    check_prompt: bool = True
    """Whether the number of prompt tokens in the first reply must equal ours, if the server reports one. A different
    number means that the server has another tokenizer or chat template."""

    choices_per_request: int | None = Field(default=None, ge=1)
    """Maximum `n` of a request; null: all responses to a prompt. Set 1 for servers that reject `n`. A server that
    ignores `n` gets further requests automatically."""

    max_concurrency: int = Field(default=16, ge=1, le=1000)
    """Maximum number of concurrent requests to a server."""

    timeout_s: float = Field(default=1800.0, gt=0, allow_inf_nan=False)
    """Seconds without data from the server after which a request has failed. All responses of a request arrive at
    once, after its time in the server's queue."""

    max_retries: int = Field(default=3, ge=0, le=100)
    """Retries of a failed request (no connection, a timeout, 408, 409, 429, 5xx), with backoff or as Retry-After
    states."""

    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Fields added to every request, such as `{"top_k": -1}`. They replace ours; null removes a field:
    `{"seed": null}`."""

    arguments: tuple[str, ...] = ()
    """`vllm`: arguments added to the command, such as `["--tensor-parallel-size", "4"]`."""

    command: tuple[str, ...] | None = None
    """`vllm`: another command that serves a checkpoint, as a list of words in which `{model}`, `{revision}`, `{port}`,
    `{window}` and `{dtype}` are replaced. null: `vllm serve` with prefix caching."""

    port: int | None = Field(default=None, ge=1, le=65535)
    """`vllm`: port on 127.0.0.1; null, or if the port is in use: a free port."""

    start_limit_s: float = Field(default=900.0, gt=0, allow_inf_nan=False)
    """`vllm`: seconds within which the server must load the model and report that it is healthy."""

    @field_validator("base_url")
    @classmethod
    def _require_url_of_external_server(cls, value: BaseUrls | None, info: ValidationInfo) -> BaseUrls | None:
        if not value and info.data.get("kind") == "external":
            raise ValueError("must be your server's address if server.kind is external")
        return value

    @field_validator("command")
    @classmethod
    def _require_model_and_port(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and not all(any(slot in word for word in value) for slot in ("{port}", "{model}")):
            raise ValueError("must be a list of words that contains {model} and {port}")
        return value


def server_key(config: ServerConfig) -> str | None:
    """Return the API key of external servers; None without `api_key_env`. Raises ConfigError if it is not set."""
    if config.api_key_env is None:
        return None
    # No base_url, because a named key is required wherever the server is.
    return read_key(config.api_key_env, base_url=None, owner="the policy's server", section="server")
