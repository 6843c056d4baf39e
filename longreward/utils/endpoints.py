"""Settings for servers of the OpenAI protocol: address and API key, without ever showing a secret."""

import os
import re
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from longreward.config import SECRET_INPUT
from longreward.errors import ConfigError

DEFAULT_KEY_ENV = "OPENAI_API_KEY"


@dataclass(frozen=True)
class ProbeResult:
    """The outcome of one small request to a judge, an embedding model or a policy server."""

    ok: bool
    message: str
    """One line for people, without the key: the server and its reply, or why it cannot be used and what to do."""
    advice: tuple[str, ...] = ()
    """What to change although it replied, a sentence each."""
    replied: bool = True
    """Whether the server replied at all. If it did and `ok` is False, the reply does not have the requested form."""


def _validate_url(value: str) -> str:
    parts = urlsplit(value)
    if "@" in parts.netloc or parts.query:
        raise PydanticCustomError(
            SECRET_INPUT,
            "must hold no user, password or query; put the key into the environment variable that api_key_env names",
        )
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError("must be a URL like http://localhost:8000/v1")
    return value


def _validate_variable_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise PydanticCustomError(
            SECRET_INPUT,
            "must be the name of an environment variable (letters, digits, _), not the key itself; its value is not "
            "shown here, since it may be one",
        )
    return value


BaseUrl = Annotated[str, AfterValidator(_validate_url)]
KeyVariable = Annotated[str, AfterValidator(_validate_variable_name)]
"""The name of an environment variable with a key."""


def read_key(variable: str, *, base_url: str | None, owner: str, section: str) -> str | None:
    """Read the API key for `owner` (for messages) from the environment.

    None where the default variable is not set and `base_url` is set, since a local server may need no key. Raises
    ConfigError where a key is required and missing, or contains characters that no key has.
    """
    key = os.environ.get(variable, "").strip()
    if key and not re.fullmatch(r"[!-~]+", key):
        raise ConfigError(f"the key in {variable} holds characters that no key has (spaces, line breaks, …)")
    if not key and (variable != DEFAULT_KEY_ENV or base_url is None):
        raise ConfigError(
            f"the environment variable {variable} holds no key for {owner}; set it, name another one with "
            f"{section}.api_key_env, or set {section}.base_url to a server that needs none"
        )
    return key or None
