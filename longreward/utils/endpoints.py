"""Check the address and the API key of a server of the OpenAI protocol, without ever showing a secret."""

import os
import re
from urllib.parse import urlsplit

from longreward.errors import ConfigError

DEFAULT_KEY_ENV = "OPENAI_API_KEY"


def validate_url(value: str | None, *, section: str) -> str | None:
    """Return the address; raises where it is no http URL or may hold a secret. `section` is its part of params.yaml."""
    if value is None:
        return value
    parts = urlsplit(value)
    # Pydantic shows the value in its errors, so an address with a secret raises ConfigError instead of ValueError.
    if "@" in parts.netloc or parts.query:
        raise ConfigError(
            f"{section}.base_url must hold no user, password or query; put the key into the environment variable "
            f"that {section}.api_key_env names"
        )
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError("must be a URL like http://localhost:8000/v1")
    return value


def validate_variable_name(value: str, *, section: str) -> str:
    """Return the name of an environment variable; any other value may be the key itself and is not shown."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise ConfigError(
            f"{section}.api_key_env must be the name of an environment variable (letters, digits, _), not the key "
            "itself; its value is not shown here, since it may be one"
        )
    return value


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
