"""The key to a judge's server, from the environment alone: which variable, and whether it must be there."""

import os

from longreward.errors import ConfigError
from longreward.judge.config import JudgeConfig
from longreward.utils.endpoints import key_from_environment


def key_of(config: JudgeConfig) -> str | None:
    """The key to send; None where none is needed. Raises ConfigError where one is needed and not there."""
    variable = key_variable(config)
    if variable is None:
        return None
    whose, preset = f"judge {config.model!r}", config.preset
    there = bool(os.environ.get(variable, "").strip())
    if config.api_key_env is None and not there and config.kind != "http":
        if not preset.key_needed:
            return None  # a server of one's own, which mostly asks for none
        raise ConfigError(
            f"the environment variable {variable} holds no key for {whose}; set it, or name another one with "
            "judge.api_key_env"
        )
    return key_from_environment(variable, base_url=config.base_url, whose=whose, section="judge")


def key_variable(config: JudgeConfig) -> str | None:
    """The variable whose key this judge gets, where it is set; None: it gets none."""
    if config.kind == "offline":
        return None
    if config.api_key_env is not None:
        return config.api_key_env
    return config.preset.key_env if config.preset.owns(config.base_url) else None
