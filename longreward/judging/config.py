"""How a judge is reached and asked: the section `judge` of `params.yaml`."""

import re
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator

from longreward.config import Config
from longreward.errors import ConfigError


class JudgeConfig(Config):
    """Which judge answers, how fast it may be asked, and when to give up on a question."""

    kind: Literal["offline", "http"] = "offline"
    """`offline`: the built-in lexical stand-in; `http`: any server that speaks the OpenAI chat protocol."""

    base_url: str | None = None
    """Where the server's protocol begins, as `http://localhost:8000/v1`; None: api.openai.com."""

    model: str | None = Field(default=None, validate_default=True)
    """The model's name as its server knows it; needed where `kind` is `http`."""

    revision: str = ""
    """Raise it when the model behind the name has changed: every question is then asked anew."""

    api_key_env: str = "OPENAI_API_KEY"
    """The name of the environment variable that holds the key. Where the default one is not set, no key is sent."""

    max_concurrency: int = Field(default=32, ge=1, le=1000)
    """Calls in flight at once."""

    requests_per_minute: int | None = Field(default=None, ge=1)
    """Calls in any 60 seconds; None: no limit. Retries of failed calls are not counted."""

    tokens_per_minute: int | None = Field(default=None, ge=1)
    """Prompt and completion tokens in any 60 seconds, estimated before a call, corrected after it; None: no limit."""

    timeout_s: float = Field(default=120.0, gt=0, allow_inf_nan=False)
    """Seconds without a byte from the server after which a call has failed."""

    max_retries: int = Field(default=5, ge=0, le=100)
    """Retries of a failed call (no connection, a timeout, 408, 409, 429, 5xx), with backoff or as Retry-After says."""

    max_attempts: int = Field(default=5, ge=1, le=100)
    """How often a question is asked whose answer cannot be read (METHOD: up to 5 tries)."""

    first_temperature: float = Field(default=0.01, ge=0, le=2)
    """Temperature of the first attempt (the published code's)."""

    retry_temperature: float = Field(default=0.95, ge=0, le=2)
    """Temperature of the attempts after an unreadable answer (the published code's)."""

    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Fields added to every request, as `{"top_p": 0.9}`. One of ours is replaced by its value here and left out where
    that is null: `{"max_tokens": null, "max_completion_tokens": 8192}` suits a model that thinks before it answers."""

    @field_validator("model")
    @classmethod
    def _is_named_for_http(cls, value: str | None, info: ValidationInfo) -> str | None:
        if info.data.get("kind") == "http" and not value:
            raise ValueError("must name the model to ask where judge.kind is http")
        return value

    @field_validator("base_url")
    @classmethod
    def _is_plain_url(cls, value: str | None) -> str | None:
        if value is None:
            return value
        parts = urlsplit(value)
        if "@" in parts.netloc or parts.query:  # may hold a secret: not shown, and so not left to pydantic
            raise ConfigError(
                "judge.base_url must hold no user, password or query; put the key into the environment variable "
                "that judge.api_key_env names"
            )
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError("must be a URL like http://localhost:8000/v1")
        return value

    @field_validator("api_key_env")
    @classmethod
    def _is_variable_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):  # perhaps the key itself: not shown
            raise ConfigError(
                "judge.api_key_env must be the name of an environment variable (letters, digits, _), not the key "
                "itself; its value is not shown here, since it may be one"
            )
        return value
