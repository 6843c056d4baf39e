"""The key to a judge's server: read from the environment alone, at the one place that knows which variable it is in."""

import os
import re

from longreward.errors import ConfigError
from longreward.judging.config import JudgeConfig


def key_of(config: JudgeConfig) -> str | None:
    """The key to send; None where none is needed. Raises ConfigError where one is needed and not there."""
    if config.kind == "offline":
        return None
    key = os.environ.get(config.api_key_env, "").strip()
    if key and not re.fullmatch(r"[!-~]+", key):
        raise ConfigError(f"the key in {config.api_key_env} holds characters that no key has (spaces, line breaks, …)")
    is_default = config.api_key_env == JudgeConfig.model_fields["api_key_env"].default
    if not key and (not is_default or config.base_url is None):
        raise ConfigError(
            f"the environment variable {config.api_key_env} holds no key for judge {config.model!r}; set it, "
            "or set judge.base_url to a server that needs none"
        )
    return key or None
