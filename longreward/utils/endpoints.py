"""Where a server of the OpenAI protocol is and which key it gets, checked so that no secret is ever shown."""

import os
import re
from urllib.parse import urlsplit

from longreward.errors import ConfigError

DEFAULT_KEY_ENV = "OPENAI_API_KEY"


def validate_url(value: str | None, *, section: str) -> str | None:
    """The address, which must hold no secret; `section` is the part of params.yaml that it stands in."""
    if value is None:
        return value
    parts = urlsplit(value)
    if "@" in parts.netloc or parts.query:  # may hold a secret: not shown, and so not left to pydantic
        raise ConfigError(
            f"{section}.base_url must hold no user, password or query; put the key into the environment variable "
            f"that {section}.api_key_env names"
        )
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError("must be a URL like http://localhost:8000/v1")
    return value


def validate_variable_name(value: str, *, section: str) -> str:
    """The name of an environment variable; anything else may be the key itself and is not shown."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise ConfigError(
            f"{section}.api_key_env must be the name of an environment variable (letters, digits, _), not the key "
            "itself; its value is not shown here, since it may be one"
        )
    return value


def read_key(variable: str, *, base_url: str | None, whose: str, section: str) -> str | None:
    """The key; None where the default variable is not set and an address of the user's own may need none.

    Raises ConfigError where a key is needed and missing, or holds what no key does; `whose` is for its message.
    """
    key = os.environ.get(variable, "").strip()
    if key and not re.fullmatch(r"[!-~]+", key):
        raise ConfigError(f"the key in {variable} holds characters that no key has (spaces, line breaks, …)")
    if not key and (variable != DEFAULT_KEY_ENV or base_url is None):
        raise ConfigError(
            f"the environment variable {variable} holds no key for {whose}; set it, "
            f"or set {section}.base_url to a server that needs none"
        )
    return key or None
