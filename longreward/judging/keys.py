"""The key to a judge's server, from the environment alone: which variable, and whether it must be there."""

import os

from longreward.endpoint import key_from_environment
from longreward.judging.config import JudgeConfig


def key_of(config: JudgeConfig) -> str | None:
    """The key to send; None where none is needed. Raises ConfigError where one is needed and not there."""
    if config.kind == "offline":
        return None
    variable, preset = key_variable(config), config.preset
    if variable is None:
        return None
    needed = preset.key_needed or config.api_key_env is not None or config.kind == "http"
    if not needed and not os.environ.get(variable, "").strip():
        return None  # a server of one's own, which mostly asks for none
    at_home = preset.key_needed and config.api_key_env is None
    return key_from_environment(
        variable, base_url=None if at_home else config.base_url, whose=f"judge {config.model!r}", section="judge"
    )


def key_variable(config: JudgeConfig) -> str | None:
    """The variable whose key this judge gets, where it is set; None: it gets none."""
    if config.api_key_env is not None:
        return config.api_key_env
    return config.preset.key_env if config.preset.owns(config.base_url) else None
